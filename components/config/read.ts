import { z } from "zod";
import { type Manifest, manifestSchema } from "../../node-installer/runtime/manifest.ts";
import { Refusal } from "../../node-installer/runtime/refusal.ts";
import { deriveRuntime } from "../../node-installer/runtime/render.ts";
import type { PlatformName } from "../../node-installer/runtime/spec.ts";
import { check, type Mistake, secretPaths, unknownKey } from "./mistakes.ts";
import { checkRules } from "./rules.ts";
import {
  type ClusterConfiguration,
  type GroupShape,
  groupName,
  groupSchema,
  type RegistryConfiguration,
  topLevel,
} from "./schema.ts";

/** A stack's configuration, checked and complete: defaults filled in, manifests read. */
export interface StackConfiguration {
  cluster: ClusterConfiguration;
  /** Exactly one of the two: a reference by digest, or the digest of the image that was built here. */
  image: { reference?: string; localDigest?: string };
  registry: RegistryConfiguration;
  /** Sorted by name. */
  groups: GroupConfiguration[];
}
export interface GroupConfiguration extends Omit<GroupShape, "runtimes"> {
  name: string;
  runtimes: RuntimeConfiguration[];
}
export interface RuntimeConfiguration {
  platform: PlatformName;
  manifest: Manifest;
  overhead: { memory?: string | undefined; cpu?: string | undefined; teeKeys: boolean };
}

/** Where configuration comes from. */
export interface ConfigurationSource {
  /** Keys of the project without its prefix; values as the engine hands them over: text, or JSON as text. */
  entries: Record<string, string>;
  /** The entries that hold something encrypted. */
  secretKeys: readonly string[];
  /** A file below the project. */
  readText(path: string): Promise<string>;
  /** Digest of the image that was built here. */
  imageDigest(): Promise<string>;
}

/** Reads and checks everything in one pass. Throws one `Refusal` that lists every mistake. */
export async function readConfiguration(source: ConfigurationSource): Promise<StackConfiguration> {
  const { entries } = source;
  const mistakes: Mistake[] = unknownEntries(entries);

  const checkPart = <S extends z.ZodType>(schema: S, value: unknown, key: string, entry: string) => {
    const checked = check(schema, value, key);
    mistakes.push(...checked.mistakes);
    if (!source.secretKeys.includes(entry)) mistakes.push(...secretPaths(schema, value, key).map(plainSecret));
    return checked.value;
  };
  const part = <S extends z.ZodType>(schema: S, key: string): z.output<S> | undefined => {
    return checkPart(schema, parseEntry(entries[key]), key, key);
  };
  const cluster = part(topLevel.cluster, "cluster");
  const installerImage = part(topLevel.installerImage, "installerImage");
  const registry = part(topLevel.registry, "registry");
  const groupsShape = check(z.record(z.string(), z.unknown()), parseEntry(entries.groups), "groups");
  mistakes.push(...groupsShape.mistakes);

  // Group by group, so that a mistake in one does not hide those between the others.
  const groups = new Map<string, GroupShape>();
  for (const [name, value] of Object.entries(groupsShape.value ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))) {
    const key = `groups.${name}`;
    const named = check(groupName, name, key);
    mistakes.push(...named.mistakes.map(({ message }) => ({ key, message: `the name ${message}` })));
    const group = checkPart(groupSchema, spelledOut(value), key, "groups");
    if (group) groups.set(name, group);
  }
  if (groupsShape.value && Object.keys(groupsShape.value).length === 0) {
    mistakes.push({ key: "groups", message: "must list at least one node group." });
  }
  mistakes.push(...checkRules({ cluster, installerImage, registry, groups }));

  const withRuntimes: GroupConfiguration[] = [];
  for (const [name, group] of groups) {
    const runtimes: RuntimeConfiguration[] = [];
    for (const [i, runtime] of group.runtimes.entries()) {
      const key = `groups.${name}.runtimes[${i}].payload`;
      const manifest = await readManifest(source, runtime.payload, runtime.platform, key, mistakes);
      if (manifest)
        runtimes.push({ platform: runtime.platform, manifest, overhead: runtime.overhead ?? { teeKeys: false } });
    }
    withRuntimes.push({ ...group, name, runtimes });
  }
  checkRuntimes(withRuntimes, mistakes);

  const localDigest =
    installerImage === "local" && cluster?.kind === "local" ? await digestOf(source, mistakes) : undefined;

  if (mistakes.length > 0 || !cluster || !registry) throw configurationRefusal(mistakes);
  return {
    cluster,
    image: localDigest === undefined ? { reference: mirrored(installerImage ?? "", registry.prefix) } : { localDigest },
    registry,
    groups: withRuntimes,
  };
}

function configurationRefusal(mistakes: Mistake[]): Refusal {
  const count = mistakes.length === 1 ? "a mistake" : `${mistakes.length} mistakes`;
  return new Refusal(
    "configuration",
    `The stack's configuration has ${count}:\n${mistakes.map(({ key, message }) => `  ${key}: ${message}`).join("\n")}`,
  );
}

/** `distribution: k3s` is short for `distribution: {name: k3s}`. */
const spelledOut = (group: unknown): unknown =>
  typeof group === "object" && group !== null && "distribution" in group && typeof group.distribution === "string"
    ? { ...group, distribution: { name: group.distribution } }
    : group;

const plainSecret = (path: string): Mistake => ({
  key: path,
  message: `is a secret in plain text. Encrypt it: pulumi config set --secret --path '${path}'.`,
});

function unknownEntries(entries: Record<string, string>): Mistake[] {
  const known = Object.keys(topLevel);
  return Object.keys(entries)
    .filter((key) => !known.includes(key))
    .sort()
    .map((key) => ({ key, message: unknownKey(key, known) }));
}

/** The engine hands structured values over as JSON. A text that is none stays what it is. */
function parseEntry(text: string | undefined): unknown {
  if (text === undefined || !/^\s*[[{]/.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

async function readManifest(
  source: ConfigurationSource,
  path: string,
  platform: PlatformName,
  key: string,
  mistakes: Mistake[],
): Promise<Manifest | undefined> {
  const problem = (message: string) => {
    mistakes.push({ key, message: `${JSON.stringify(path)} ${message}` });
    return undefined;
  };
  let content: unknown;
  try {
    content = JSON.parse(await source.readText(path));
  } catch (error) {
    if (error instanceof SyntaxError) return problem(`is not JSON: ${error.message}. Write it with npm run lock.`);
    return problem("cannot be read. Write the manifest with npm run lock; the path begins at the project's directory.");
  }
  const { value: manifest, mistakes: inside } = check(manifestSchema, content, "");
  if (!manifest) {
    const [first] = inside;
    return problem(`is no manifest: ${first?.key || "the document"} ${first?.message} Write it with npm run lock.`);
  }
  try {
    deriveRuntime({ platform, manifest });
    return manifest;
  } catch (error) {
    if (error instanceof Refusal) return problem(`cannot be used: ${error.message}`);
    throw error;
  }
}

function checkRuntimes(groups: GroupConfiguration[], mistakes: Mistake[]): void {
  const overheads = new Map<string, { group: string; overhead: string }>();
  for (const group of groups) {
    const seen = new Set<string>();
    for (const { platform, manifest, overhead } of group.runtimes) {
      const { handler } = deriveRuntime({ platform, manifest });
      const key = `groups.${group.name}.runtimes`;
      if (seen.has(handler))
        mistakes.push({ key, message: `lists ${handler} (${platform}, ${manifest.name}) twice. Remove one.` });
      seen.add(handler);
      const other = overheads.get(handler);
      const text = JSON.stringify([overhead.memory, overhead.cpu, overhead.teeKeys]);
      if (other && other.overhead !== text) {
        mistakes.push({
          key,
          message: `gives ${handler} another overhead than group ${other.group}. A handler has one RuntimeClass, and that has one overhead.`,
        });
      }
      overheads.set(handler, { group: group.name, overhead: text });
    }
  }
}

async function digestOf(source: ConfigurationSource, mistakes: Mistake[]): Promise<string | undefined> {
  try {
    return await source.imageDigest();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    mistakes.push({ key: "installerImage", message: `"local" cannot be used: ${error.message}` });
    return undefined;
  }
}

/** The same image from a mirror: only the registry's host changes. */
const mirrored = (image: string, prefix: string | undefined): string =>
  prefix === undefined ? image : `${prefix}/${image.replace(/^[^/]+\//, "")}`;
