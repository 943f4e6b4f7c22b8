import { launchValues } from "../../measure/launch-values.ts";
import { measuredRuntime } from "../../measure/runtime.ts";
import { type Assessment, assess, explainOpen } from "../../runtime/advisories.ts";
import { type Manifest, manifestSchema } from "../../runtime/manifest.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { PlatformName } from "../../runtime/spec.ts";
import { defaults } from "./defaults.ts";
import { check, type Mistake } from "./mistakes.ts";
import type { GroupShape } from "./schema.ts";

export interface RuntimeConfiguration {
  platform: PlatformName;
  manifest: Manifest;
  /** Of the two above. */
  handler: string;
  acknowledgedAdvisories: string[];
  overhead: { memory?: string | undefined; cpu?: string | undefined; teeKeys: boolean };
}

type ReadText = (path: string) => Promise<string>;

/** Reads the manifests that a group's runtimes name; one that cannot be used is a mistake and left out. */
export async function readRuntimes(group: string, { runtimes }: GroupShape, readText: ReadText, mistakes: Mistake[]) {
  const read = await Promise.all(
    runtimes.map(async (runtime) => ({
      ...runtime,
      usable: await readManifest(runtime.payload, runtime.platform, readText),
    })),
  );
  // Only now, in the order of the list, and not in the one in which the files were read.
  return read.flatMap(({ platform, payload, usable, acknowledgedAdvisories, ...runtime }, i) => {
    const key = `groups.${group}.runtimes[${i}]`;
    if (typeof usable === "string") {
      mistakes.push({ key: `${key}.payload`, message: `${JSON.stringify(payload)} ${usable}` });
      return [];
    }
    const { manifest, handler } = usable;
    const { overhead = { teeKeys: defaults.teeKeys } } = runtime;
    mistakes.push(...advisoryMistakes(key, payload, manifest, assess({ platform, manifest }, acknowledgedAdvisories)));
    return [{ platform, manifest, handler, acknowledgedAdvisories, overhead }];
  });
}

/** A payload with a known hole is used only where the stack says that this is known. */
function advisoryMistakes(
  key: string,
  payload: string,
  { kataVersion }: Manifest,
  { open, mistakes }: Assessment,
): Mistake[] {
  const list = (ids: string[]) => `acknowledgedAdvisories: [${ids.join(", ")}]`;
  return [
    ...(open.length === 0
      ? []
      : [
          {
            key: `${key}.payload`,
            message: `${JSON.stringify(payload)} holds Kata ${kataVersion}, which has known holes. ${explainOpen(open, (ids) => `add "${list(ids)}" to the runtime`)}`,
          },
        ]),
    ...mistakes.map(({ index, message }) => ({ key: `${key}.acknowledgedAdvisories[${index}]`, message })),
  ];
}

/** The manifest with the handler that it makes of the platform, or what is wrong with it. */
async function readManifest(
  path: string,
  platform: PlatformName,
  readText: ReadText,
): Promise<{ manifest: Manifest; handler: string } | string> {
  let content: unknown;
  try {
    content = JSON.parse(await readText(path));
  } catch (error) {
    if (error instanceof SyntaxError) return `is not JSON: ${error.message}. Write it with npm run lock.`;
    return "cannot be read. Write the manifest with npm run lock; the path begins at the project's directory.";
  }
  const { value: manifest, mistakes } = check(manifestSchema, content, "");
  if (!manifest) {
    const [first] = mistakes;
    return `is not a manifest: ${first?.key || "the document"} ${first?.message} Write it with npm run lock.`;
  }
  try {
    // A guest whose measurements cannot be computed cannot be attested either.
    const runtime = measuredRuntime({ platform, manifest });
    launchValues(runtime);
    return { manifest, handler: runtime.spec.handler };
  } catch (error) {
    if (error instanceof Refusal) return `cannot be used: ${error.message}`;
    throw error;
  }
}

/** Mistakes across runtimes: one listed twice in a group, or with two overheads. */
export function checkRuntimes(groups: { name: string; runtimes: RuntimeConfiguration[] }[]): Mistake[] {
  const mistakes: Mistake[] = [];
  const overheads = new Map<string, { group: string; overhead: string }>();
  for (const { name, runtimes } of groups) {
    const key = `groups.${name}.runtimes`;
    const seen = new Set<string>();
    for (const { platform, manifest, handler, overhead } of runtimes) {
      if (seen.has(handler)) {
        mistakes.push({ key, message: `lists ${handler} (${platform}, ${manifest.name}) twice. Remove one.` });
      }
      seen.add(handler);
      const own = JSON.stringify([overhead.memory, overhead.cpu, overhead.teeKeys]);
      const other = overheads.get(handler);
      if (other && other.overhead !== own) {
        mistakes.push({
          key,
          message: `gives ${handler} a different overhead than group ${other.group}. A handler has one RuntimeClass, and that has one overhead.`,
        });
      }
      overheads.set(handler, { group: name, overhead: own });
    }
  }
  return mistakes;
}
