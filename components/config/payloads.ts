import type { RuntimeSettings } from "../../runtime/kata-overrides.ts";
import type { Manifest } from "../../runtime/manifest.ts";
import type { PlatformName } from "../../runtime/spec.ts";
import { defaults } from "./defaults.ts";
import { derive } from "./derivation.ts";
import { parseManifest } from "./manifest.ts";
import type { Mistake } from "./mistakes.ts";
import type { GroupShape } from "./schema.ts";

export interface RuntimeConfiguration extends RuntimeSettings {
  platform: PlatformName;
  manifest: Manifest;
  /** Of the two above. */
  handler: string;
  acknowledgedAdvisories: string[];
  overhead: { memory?: string | undefined; cpu?: string | undefined; teeKeys: boolean };
  classNames: string[];
  currentFor: string[];
}

type ReadText = (path: string) => Promise<string>;

/** Reads the manifests that a group's runtimes name; one that cannot be used is a mistake and left out. */
export async function readRuntimes(
  group: string,
  { distribution, runtimes }: Pick<GroupShape, "distribution" | "runtimes">,
  readText: ReadText,
  mistakes: Mistake[],
  guestRegistry = false,
) {
  const manifests = await Promise.all(runtimes.map(async ({ payload }) => await readManifest(payload, readText)));
  // Only now, in the order of the list, and not in the one in which the files were read.
  return runtimes.flatMap(
    ({ platform, payload, overhead, classNames, currentFor, ...settings }, i): RuntimeConfiguration[] => {
      const key = `groups.${group}.runtimes[${i}]`;
      const manifest = manifests[i];
      const path = JSON.stringify(payload);
      if (manifest === undefined || typeof manifest === "string") {
        mistakes.push({ key: `${key}.payload`, message: `${path} ${manifest}` });
        return [];
      }
      const given = { ...settings, platform, manifest };
      const acknowledging = (ids: string[]) => `"acknowledgedAdvisories: [${ids.join(", ")}]"`;
      const terms = { key, manifest: "payload", payload: path, unusable: `${path} `, acknowledging, guestRegistry };
      const derived = derive({ ...given, distribution: distribution.name }, terms, mistakes);
      if (derived === undefined) return [];
      const { handler } = derived.spec;
      return [{ ...given, handler, overhead: overhead ?? { teeKeys: defaults.teeKeys }, classNames, currentFor }];
    },
  );
}

/** The manifest, or what is wrong with it. */
async function readManifest(path: string, readText: ReadText): Promise<Manifest | string> {
  let text: string;
  try {
    text = await readText(path);
  } catch (error) {
    return `cannot be read: ${(error as Error).message}. Write the manifest with npx contrast-runtime lock; the path begins at the project's directory.`;
  }
  const manifest = parseManifest(text);
  return typeof manifest === "string" ? `${manifest} Write it with npx contrast-runtime lock.` : manifest;
}
