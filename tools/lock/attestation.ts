import { join } from "node:path";
import type { Signer } from "@sigstore/verify";
import * as z from "zod";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { namedText } from "../files/named-file.ts";
import { connectionProblem, discard, readText, send } from "../http/client.ts";
import type { Progress } from "../process/progress.ts";
import { cacheDirectory } from "../programs/cache.ts";

/** Whose workflows attest a Kata release. */
const repository = "https://github.com/kata-containers/kata-containers";
const workflows = `${repository}/.github/workflows/`;
/** Who said so to the authority that made the certificate: GitHub Actions. */
const issuer = "https://token.actions.githubusercontent.com";
const provenance = "https://slsa.dev/provenance/v1";

/** What is known of an archive, and where its attestation may be. */
export interface Attested {
  /** Of the archive, hex. */
  sha256: string;
  /** Of Kata, such as "4.1.0". */
  version: string;
  /** Instead of GitHub's API: the directory with the archive; beside it the file that `gh attestation download` writes. */
  mirror?: string | undefined;
  /** Instead of both: a Sigstore bundle, or one a line. It must be there and hold. */
  file?: string | undefined;
  /** Sigstore's trusted root, or one a line (`gh attestation trusted-root`); by default Sigstore's own, by TUF. */
  trustedRoot?: string | undefined;
  ca?: string | undefined;
  /** GitHub's API, if it is another than the public one. */
  api?: string;
}

/**
 * Checks who built an archive, if there is an attestation of it.
 *
 * @returns the workflow that built it; undefined if there is no attestation or it cannot be had, which is said
 * @throws Refusal if there is one that does not hold or is somebody else's
 */
export async function checkAttestation(attested: Attested, progress: Progress): Promise<string | undefined> {
  const { file, trustedRoot } = attested;
  const unchecked = (why: string) => progress(`No attestation of the archive was checked: ${why}.`);
  const bundles =
    file === undefined ? await fetchBundles(attested) : jsonIn(await namedText("attestation", file), file);
  if (typeof bundles === "string") {
    unchecked(bundles);
    return undefined;
  }
  if (trustedRoot !== undefined)
    return await attestedBy(bundles, jsonIn(await namedText("trusted root", trustedRoot), trustedRoot), attested);
  const root = await sigstoreRoot().catch((error) => {
    const why = `Sigstore's trusted root cannot be fetched (${printable(connectionProblem(error))}); with --trusted-root FILE it is not needed`;
    if (file !== undefined) throw new Refusal("trusted-root", `${file} cannot be checked: ${why}.`);
    unchecked(why);
    return undefined;
  });
  return root === undefined ? undefined : await attestedBy(bundles, [root], attested);
}

/**
 * The workflow that attested the archive. Its signature, its certificate up to the root, the authority's and the log's
 * records of both, and the time of signing are checked by Sigstore's own library; what the certificate says of the signer,
 * and the statement, here.
 *
 * @param bundles Sigstore bundles, parsed from JSON, from anybody; the first that holds decides
 * @param roots trusted roots in their JSON form
 * @throws Refusal that says what was expected and why none of the bundles is it
 */
export async function attestedBy(
  bundles: unknown[],
  roots: unknown[],
  { sha256, version }: Pick<Attested, "sha256" | "version">,
): Promise<string> {
  // Only here: other commands do not load them, and they ask for a newer Node than the rest of the package does.
  const [{ bundleFromJSON }, { TrustedRoot }, { toSignedEntity, toTrustMaterial, Verifier }] = await Promise.all([
    import("@sigstore/bundle"),
    import("@sigstore/protobuf-specs"),
    import("@sigstore/verify"),
  ]);
  const verifiers = roots.map((root) => {
    try {
      return new Verifier(toTrustMaterial(TrustedRoot.fromJSON(root)));
    } catch (error) {
      throw new Refusal("trusted-root", `The trusted root is none of Sigstore's: ${reason(error)}.`);
    }
  });
  const problems = new Set<string>();
  for (const bundle of bundles)
    for (const verifier of verifiers)
      try {
        const parsed = bundleFromJSON(bundle);
        const signer = verifier.verify(toSignedEntity(parsed));
        if (parsed.content.$case !== "dsseEnvelope") throw new Error("it signs no statement");
        requireSubject(parsed.content.dsseEnvelope, sha256);
        return requireKata(signer, version);
      } catch (error) {
        problems.add(reason(error));
      }
  throw new Refusal(
    "attestation-invalid",
    `The archive with the SHA-256 ${sha256} has an attestation that does not hold. Expected: provenance (${provenance}) of this digest, signed by a workflow of ${repository} on main, stable-* or the tag ${version}, with a certificate for ${issuer}, in the transparency log. Found: ${[...problems].join("; ") || "no attestation"}. Do not use the archive before you know why.`,
  );
}

const reason = (error: unknown) => printable(error instanceof Error ? error.message : String(error), 300);

const statementSchema = z.object({
  _type: z.literal("https://in-toto.io/Statement/v1"),
  predicateType: z.string(),
  subject: z.array(z.object({ digest: z.record(z.string(), z.string()) })),
});

function requireSubject({ payload, payloadType }: { payload: Buffer; payloadType: string }, sha256: string): void {
  if (payloadType !== "application/vnd.in-toto+json") throw new Error(`a payload of the type ${payloadType}`);
  const statement = statementSchema.safeParse(JSON.parse(payload.toString()));
  if (!statement.success) throw new Error("a payload that is no in-toto statement");
  const { predicateType, subject } = statement.data;
  if (predicateType !== provenance) throw new Error(`a statement of the kind ${predicateType}`);
  if (!subject.some(({ digest }) => digest.sha256 === sha256))
    throw new Error(`a statement about ${subject.map(({ digest }) => digest.sha256).join(", ")}`);
}

/**
 * The certificate's names and extensions (Fulcio's docs/oid-info.md). The workflow in its name may be called by other
 * repositories, with their sources: the repository and the ref that the build ran for must be Kata's, too. Branches that
 * anybody with write access can make, and pull requests (refs/pull/…), are no releases.
 */
function requireKata({ identity }: Signer, version: string): string {
  const workflow = identity?.subjectAlternativeName ?? "nobody";
  const extension = (id: string) =>
    derText(identity?.oids?.find(({ oid }) => oid?.id.join(".") === `1.3.6.1.4.1.57264.1.${id}`)?.value);
  const source = { repository: extension("12"), ref: extension("14") };
  const released = ["refs/heads/main", `refs/tags/${version}`];
  const isReleased = (ref = "") => released.includes(ref) || /^refs\/heads\/stable-\d+\.\d+$/.test(ref);
  const [, path = "", ref] = /^([^@]+)@([^@]+)$/.exec(workflow) ?? [];
  const ofKata = path.startsWith(workflows) && /^[\w.-]+$/.test(path.slice(workflows.length));
  if (identity?.extensions?.issuer !== issuer) throw new Error(`a certificate for ${identity?.extensions?.issuer}`);
  if (!ofKata || !isReleased(ref)) throw new Error(`signed by ${workflow}`);
  if (source.repository !== repository || !isReleased(source.ref))
    throw new Error(`signed by ${workflow} for sources of ${source.repository}@${source.ref}`);
  return workflow;
}

/** A DER UTF8String, shorter than 128 bytes as all that is expected here. */
const derText = (value: Uint8Array | undefined): string | undefined =>
  value?.[0] === 0x0c && value.length < 130 && value[1] === value.length - 2
    ? Buffer.from(value.subarray(2)).toString()
    : undefined;

/** One JSON value, or one a line. */
function jsonIn(text: string, file: string): unknown[] {
  try {
    return [JSON.parse(text)];
  } catch {
    // said below if there are no values in its lines either
  }
  try {
    const lines = text.split("\n").filter((line) => line.trim() !== "");
    if (lines.length > 0) return lines.map((line): unknown => JSON.parse(line));
  } catch {
    // said below
  }
  throw new Refusal("attestation-malformed", `${file} is no JSON, neither as a whole nor line by line.`);
}

const envelopeSchema = z.object({ dsseEnvelope: z.object({ payload: z.base64() }) });

/** Whether it says itself that it is no provenance, such as GitHub's own record of a release's assets. */
function isOfAnotherKind(bundle: unknown): boolean {
  try {
    const { payload } = envelopeSchema.parse(bundle).dsseEnvelope;
    const { predicateType } = statementSchema.parse(JSON.parse(Buffer.from(payload, "base64").toString()));
    return predicateType !== provenance;
  } catch {
    return false;
  }
}

const answerSchema = z.object({ attestations: z.array(z.object({ bundle: z.unknown() })) });

/** The bundles, or why there are none. What is somebody's garbage, and no bundle, is as good as nothing. */
async function fetchBundles({ sha256, mirror, ca, api = "https://api.github.com" }: Attested) {
  const base = mirror?.replace(/\/$/, "") ?? `${api}/repos/kata-containers/kata-containers/attestations`;
  const url = new URL(
    mirror === undefined ? `${base}/sha256:${sha256}?predicate_type=provenance` : `${base}/sha256:${sha256}.jsonl`,
  );
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
      return `${url.origin} ${answer.statusCode === 404 ? "has none" : `answered ${answer.statusCode}`} (${url.pathname})`;
    }
    const text = await readText(answer);
    const found =
      mirror === undefined
        ? answerSchema.parse(JSON.parse(text)).attestations.map(({ bundle }) => bundle)
        : jsonIn(text, url.href);
    const bundles = found.filter((bundle) => bundle != null && !isOfAnotherKind(bundle));
    return bundles.length > 0 ? bundles : `${url.origin} has none`;
  } catch (error) {
    const why = error instanceof z.ZodError || error instanceof SyntaxError ? "no list of attestations" : undefined;
    return `${url.origin} gave none that can be read (${why ?? printable(connectionProblem(error), 300)})`;
  }
}

/** Sigstore's trusted root (fulcio, rekor and their like), kept and renewed by its update framework. */
async function sigstoreRoot(): Promise<unknown> {
  const [{ getTrustedRoot }, { TrustedRoot }] = await Promise.all([
    import("@sigstore/tuf"),
    import("@sigstore/protobuf-specs"),
  ]);
  return TrustedRoot.toJSON(await getTrustedRoot({ cachePath: join(cacheDirectory(), "sigstore") }));
}
