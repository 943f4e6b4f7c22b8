import * as z from "zod";
import { printable } from "../../runtime/printable.ts";
import { connectionProblem, discard, readText, send } from "../http/client.ts";

/** Which archive of which release. */
export interface Asset {
  /** Of Kata, such as "4.3.0". */
  version: string;
  /** The archive's file name. */
  asset: string;
  /** Instead of GitHub's API: the directory with the archive; beside it `release.json`, the API's answer. */
  mirror?: string | undefined;
  ca?: string | undefined;
  /** GitHub's API, if it is another than the public one. */
  api?: string | undefined;
}

/** GitHub's record of a release (REST API, "Get a release by tag name"), as far as it is used. */
const recordSchema = z.object({
  tag_name: z.string(),
  assets: z.array(z.object({ name: z.string(), digest: z.string().nullish() })),
});

/**
 * The SHA-256 that GitHub recorded of an archive when it was uploaded, and where that was read; or why it is not known.
 * Nobody signed the record: it is worth as much as the connection to whoever gave it, so plain HTTP gives none.
 */
export async function recordedDigest(wanted: Asset): Promise<{ sha256: string; from: string } | { problem: string }> {
  const { version, mirror, ca, api = "https://api.github.com" } = wanted;
  const base = mirror?.replace(/\/$/, "");
  const url = new URL(
    base === undefined
      ? `${api}/repos/kata-containers/kata-containers/releases/tags/${version}`
      : `${base}/release.json`,
  );
  const isHere = ["127.0.0.1", "[::1]", "localhost"].includes(url.hostname);
  if (url.protocol !== "https:" && !isHere) return { problem: `${url.origin} is without TLS, so it is not asked` };
  const { GITHUB_TOKEN: token } = process.env;
  const headers = {
    accept: "application/json",
    "user-agent": "contrast-runtime",
    "x-github-api-version": "2022-11-28",
    ...(token && mirror === undefined ? { authorization: `Bearer ${token}` } : {}),
  };
  try {
    const answer = await send({ method: "GET", url, headers, ca });
    if (answer.statusCode !== 200) {
      discard(answer);
      return { problem: `${url.href} answered ${answer.statusCode}` };
    }
    return digestIn(await readText(answer), wanted, url.href);
  } catch (error) {
    return { problem: `${url.href} could not be read (${printable(connectionProblem(error), 300)})` };
  }
}

function digestIn(text: string, { version, asset }: Asset, from: string) {
  let record: z.infer<typeof recordSchema>;
  try {
    record = recordSchema.parse(JSON.parse(text));
  } catch {
    return { problem: `${from} is no record of a release` };
  }
  if (record.tag_name !== version)
    return { problem: `${from} is the record of ${printable(record.tag_name, 50)}, not of ${version}` };
  const found = record.assets.find(({ name }) => name === asset);
  if (found === undefined) return { problem: `${from} has no asset ${asset}` };
  const sha256 = /^sha256:([0-9a-f]{64})$/.exec(found.digest ?? "")?.[1];
  return sha256 === undefined ? { problem: `${from} has no SHA-256 of ${asset}` } : { sha256, from };
}
