import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { parseDocument } from "yaml";
import * as z from "zod";
import { flavourNames } from "../../runtime/flavours.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { platformNames } from "../../runtime/spec.ts";
import { namedText } from "../files/named-file.ts";
import { projectDirectory } from "../files/project.ts";
import type { Progress } from "../process/progress.ts";
import { type Locked, lock } from "./order.ts";

/** What says which release of Kata a payload is: `lock kata-release` calls it PLATFORM-FLAVOUR-VERSION. */
export interface MissingPayload {
  platform: (typeof platformNames)[number];
  flavour: (typeof flavourNames)[number];
  kataVersion: string;
  /** Where the stack expects the manifest. */
  output: string;
  /** Holes that the stack's runtime puts up with. */
  acknowledge: string[];
}

/** What every payload that is missing is locked with. What is of one archive only is not among it. */
export interface MissingOptions {
  mirror?: string | undefined;
  ca?: string | undefined;
  trustedRoot?: string | undefined;
  payloads?: string | undefined;
}

/**
 * Locks what is missing, one after the other; `each` is told of it at once, as a later one may fail.
 *
 * @throws Refusal with the command that locks the payload by itself, as its reason may need an option of that one
 */
export async function lockMissing(
  files: readonly string[],
  options: MissingOptions,
  progress: Progress,
  each: (locked: Locked) => Promise<void>,
): Promise<void> {
  for (const payload of await missingPayloads(files, progress)) {
    const order = { source: "kata-release" as const, file: [], rtmr0: [], ...payload, ...options };
    await each(await lock(order, progress).catch((error) => Promise.reject(byItself(error, payload))));
  }
}

function byItself(error: unknown, { platform, flavour, kataVersion, output }: MissingPayload): unknown {
  if (!(error instanceof Refusal)) return error;
  const command = `contrast-runtime lock kata-release --platform ${platform} --flavour ${flavour} --kata-version ${kataVersion}`;
  return new Refusal(
    error.code,
    `${error.message}\n${basename(output)} was not locked. Options that are of one archive or payload, such as --sha256, --attestation and --acknowledge, are given by itself: ${command}`,
  );
}

/** As far as it matters here: whether the rest of a stack's configuration is right, its preview says. */
const stackFile = z.object({
  config: z.record(z.string(), z.unknown()),
});
const groups = z.record(
  z.string(),
  z.object({
    runtimes: z.array(z.object({ payload: z.string(), acknowledgedAdvisories: z.array(z.string()).default([]) })),
  }),
);

/**
 * The payloads that stack files name and that have no manifest, each once. Those whose name does not say which release of
 * Kata they are, such as the local cluster's, are only told.
 *
 * @param directory what their paths begin at
 * @throws Refusal for a file without groups
 */
export async function missingPayloads(
  files: readonly string[],
  progress: Progress,
  directory = projectDirectory,
): Promise<MissingPayload[]> {
  const found = new Map<string, MissingPayload>();
  for (const file of files) {
    for (const { payload, acknowledgedAdvisories } of await runtimesIn(file)) {
      const output = join(directory, payload);
      if (existsSync(output)) continue;
      const release = releaseOf(payload);
      if (release === undefined) {
        progress(`${payload} (${file}) is not there, and its name says no release of Kata: lock it by itself.`);
        continue;
      }
      const before = found.get(output)?.acknowledge ?? [];
      found.set(output, {
        ...release,
        output,
        acknowledge: [...new Set([...before, ...acknowledgedAdvisories])],
      });
    }
  }
  return [...found.values()];
}

async function runtimesIn(file: string) {
  const content = await namedText("stack's file", file);
  const document = parseDocument(content);
  const [mistake] = document.errors;
  if (mistake) throw new Refusal("no-yaml", `${file} is no YAML: ${mistake.message.split("\n")[0]}`);
  const stack = stackFile.safeParse(document.toJS());
  const [, value] = Object.entries(stack.data?.config ?? {}).find(([key]) => key.endsWith(":groups")) ?? [];
  const read = groups.safeParse(value);
  if (read.success) return Object.values(read.data).flatMap(({ runtimes }) => runtimes);
  throw new Refusal(
    "no-groups",
    `${file} has no groups whose runtimes name payloads (config, contrast-runtime:groups): is it a stack's file?`,
  );
}

function releaseOf(payload: string): Pick<MissingPayload, "platform" | "flavour" | "kataVersion"> | undefined {
  const [, pair, kataVersion = ""] = /^(.+)-(\d+\.\d+\.\d+)\.json$/.exec(basename(payload)) ?? [];
  for (const platform of platformNames)
    for (const flavour of flavourNames)
      if (pair === `${platform}-${flavour}` && flavour.startsWith("kata-")) return { platform, flavour, kataVersion };
  return undefined;
}
