import * as z from "zod";
import { Refusal } from "../../runtime/refusal.ts";
import { groupName } from "../../runtime/spec.ts";
import { registryMistakes } from "./guest-registry.ts";
import { check, type Mistake, secretPaths, unknownKey } from "./mistakes.ts";
import { type RuntimeConfiguration, readRuntimes } from "./payloads.ts";
import { checkRules, type Parts } from "./rules.ts";
import { checkRuntimes } from "./runtime-rules.ts";
import {
  type ClusterConfiguration,
  type GroupShape,
  groupSchema,
  type RegistryConfiguration,
  topLevel,
} from "./schema.ts";

/** A stack's configuration, checked and complete: defaults filled in, manifests read. */
export interface StackConfiguration {
  cluster: ClusterConfiguration;
  /** Exactly one of them: a reference by digest, or the digest of the image that was built here. */
  image: { reference?: string; localDigest?: string };
  registry: RegistryConfiguration;
  /** Sorted by name. */
  groups: GroupConfiguration[];
}
export interface GroupConfiguration extends Omit<GroupShape, "runtimes"> {
  name: string;
  runtimes: RuntimeConfiguration[];
}

/** Where configuration comes from. */
export interface ConfigurationSource {
  /** The stack's name. */
  stack: string;
  /** Keys of the project without its prefix; values as the engine hands them over: text, or JSON as text. */
  entries: Record<string, string>;
  /** The entries that hold something encrypted. */
  secretKeys: readonly string[];
  /** A file below the project. */
  readText(path: string): Promise<string>;
  /** What to do about a secret in plain text. @default the command that encrypts it */
  plainSecretAdvice?: string;
  /** Digest of the image that was built here. Throws `Refusal` if there is none. */
  imageDigest(): Promise<string>;
}

/** Reads and checks everything in one pass. Throws one `Refusal` that lists every mistake. */
export async function readConfiguration(source: ConfigurationSource): Promise<StackConfiguration> {
  const mistakes: Mistake[] = [];
  const parts = readParts(source, mistakes);
  mistakes.push(...checkRules(parts));

  const guestRegistry = parts.registry?.guest;
  const groups: GroupConfiguration[] = [];
  for (const [name, group] of parts.groups) {
    groups.push({
      ...group,
      name,
      runtimes: await readRuntimes(name, group, source.readText, mistakes, guestRegistry !== undefined),
    });
  }
  mistakes.push(
    ...checkRuntimes(
      groups.map(({ name, runtimes }) => ({
        name,
        key: `groups.${name}.runtimes`,
        runtimes: runtimes.map(({ manifest, ...runtime }) => ({ ...runtime, payload: manifest.name })),
      })),
    ),
  );

  if (
    guestRegistry &&
    groups.every(({ name, runtimes }) => runtimes.length === parts.groups.get(name)?.runtimes.length)
  )
    mistakes.push(
      ...registryMistakes(
        guestRegistry,
        groups.flatMap(({ runtimes }) => runtimes),
        "registry.guest",
      ),
    );

  const { cluster, installerImage, registry } = parts;
  const image = await readImage(parts, source, mistakes);
  if (mistakes.length > 0 || !cluster || !registry || installerImage === undefined || !image) throw refusal(mistakes);
  return { cluster, image, registry, groups };
}

/** Reads each part on its own, so that a mistake in one does not hide those between the others. */
function readParts(source: ConfigurationSource, mistakes: Mistake[]): Parts {
  const { stack, entries, secretKeys, plainSecretAdvice } = source;
  const known = Object.keys(topLevel);
  for (const key of Object.keys(entries).sort()) {
    if (!known.includes(key)) mistakes.push({ key, message: unknownKey(key, known) });
  }
  const read = <S extends z.ZodType>(schema: S, value: unknown, key: string, entry = key): z.output<S> | undefined => {
    const encrypted = secretKeys.includes(entry);
    const checked = check(schema, value, key, encrypted);
    mistakes.push(...checked.mistakes.map(settable));
    if (!encrypted)
      mistakes.push(...secretPaths(schema, value, key).map((path) => plainSecret(path, plainSecretAdvice)));
    return checked.value;
  };
  const value = (key: string) => structured(entries[key]);
  const parts = {
    stack,
    cluster: writesYaml(value("cluster")) ? noYaml(mistakes) : read(topLevel.cluster, value("cluster"), "cluster"),
    installerImage: read(topLevel.installerImage, value("installerImage"), "installerImage"),
    registry: read(topLevel.registry, value("registry"), "registry"),
    groups: new Map<string, GroupShape>(),
  };

  const named = read(z.record(z.string(), z.unknown()), value("groups"), "groups");
  if (named && Object.keys(named).length === 0) {
    mistakes.push({ key: "groups", message: "must list at least one node group." });
  }
  for (const [name, content] of Object.entries(named ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))) {
    const key = `groups.${name}`;
    const wrongName = check(groupName, name, key).mistakes;
    mistakes.push(...wrongName.map(({ message }) => ({ key, message: `the name ${message}` })));
    const group = read(groupSchema, spelledOut(content), key, "groups");
    if (group) parts.groups.set(name, group);
  }
  return parts;
}

const writesYaml = (cluster: unknown): boolean =>
  typeof cluster === "object" && cluster !== null && "kind" in cluster && cluster.kind === "yaml";

/** Of releases before, whose previews wrote files. */
function noYaml(mistakes: Mistake[]): undefined {
  mistakes.push({
    key: "cluster.kind",
    message:
      '"yaml" is no longer there. The same objects are written by contrast-runtime render --stack Pulumi.STACK.yaml --output DIR: ' +
      "commit that directory, have it applied in place of the old one, and forget the stack's state: pulumi stack rm --force.",
  });
}

async function readImage(
  { cluster, installerImage, registry }: Parts,
  source: ConfigurationSource,
  mistakes: Mistake[],
): Promise<StackConfiguration["image"] | undefined> {
  if (installerImage === undefined) return undefined;
  if (installerImage !== "local") return { reference: mirrored(installerImage, registry?.prefix) };
  if (cluster?.kind !== "local") return undefined;
  try {
    return { localDigest: await source.imageDigest() };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    mistakes.push({ key: "installerImage", message: `"local" cannot be used: ${error.message}` });
    return undefined;
  }
}

/** The same image from a mirror: only the registry's host changes. */
const mirrored = (image: string, prefix: string | undefined): string =>
  prefix === undefined ? image : `${prefix}/${image.replace(/^[^/]+\//, "")}`;

function refusal(mistakes: Mistake[]): Refusal {
  const count = mistakes.length === 1 ? "a mistake" : `${mistakes.length} mistakes`;
  const lines = mistakes.map(({ key, message }) => `  ${key}: ${message}`);
  return new Refusal("configuration", `The stack's configuration has ${count}:\n${lines.join("\n")}`);
}

const settable = ({ missingSecret, key, message }: Mistake): Mistake => ({
  key,
  message: missingSecret ? `${message} Set it: ${setSecret(key)}.` : message,
});
const setSecret = (path: string): string => `pulumi config set --secret --path '${path}'`;

const plainSecret = (path: string, advice = `Encrypt it: ${setSecret(path)}.`): Mistake => ({
  key: path,
  message: `is a secret in plain text. ${advice}`,
});

/** `distribution: k3s` is short for `distribution: {name: k3s}`. */
const spelledOut = (group: unknown): unknown =>
  typeof group === "object" && group !== null && "distribution" in group && typeof group.distribution === "string"
    ? { ...group, distribution: { name: group.distribution } }
    : group;

/** The engine passes structured values as JSON. Text that is not JSON stays as it is. */
function structured(text: string | undefined): unknown {
  if (text === undefined || !/^\s*[[{]/.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
