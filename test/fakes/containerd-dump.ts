import { parse, TomlError } from "smol-toml";
import type { RunResult } from "../../node-installer/host/host.ts";

/**
 * `containerd config dump`, as far as it refuses: what real ones were seen to refuse, in words like theirs
 * (test/cluster/containerd-dump.test.ts holds both to the same cases). What it prints is the file as it is, in version 3 if
 * it was in version 2, without the defaults that a real one adds.
 */
export function configDump(text: string | undefined, file: string, newestVersion = 3): Partial<RunResult> {
  const problem = problemOf(text, file, newestVersion);
  return problem === undefined
    ? { stdout: text === undefined ? "" : migrated(text) }
    : { code: 1, stderr: `containerd: ${problem}\n` };
}

/** A containerd without a file. */
export const defaultConfiguration = `version = 3
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
sandboxer = "podsandbox"
`;

/** containerd 2.x reads version 2 by renaming its ids and keys. */
const migrated = (text: string): string =>
  /^version = 2$/m.test(text)
    ? text
        .replace(/^version = 2$/m, "version = 3")
        .replaceAll(/\bio\.containerd\.grpc\.v1\.cri\b/g, "io.containerd.cri.v1.runtime")
        .replaceAll(/^(\s*)sandbox_mode\b/gm, "$1sandboxer")
    : text;

function problemOf(text: string | undefined, file: string, newestVersion: number): string | undefined {
  if (text === undefined) return `failed to load TOML: ${file}: open ${file}: no such file or directory`;
  let document: Table;
  try {
    document = parse(text) as Table;
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    return `failed to unmarshal TOML at row ${error.line} column ${error.column}: toml: ${error.message.split("\n", 1)[0]}`;
  }
  const wrong = wrongType(document, shape, []);
  if (wrong !== undefined) return `failed to unmarshal TOML: toml: ${wrong}`;
  const { version } = document;
  if (typeof version === "number" && version > newestVersion)
    return `failed to load TOML from ${file}: expected containerd config version equal to or less than \`${newestVersion}\`, got \`${version}\``;
  return undefined;
}

type Table = { [key: string]: unknown };
const isTable = (value: unknown): value is Table =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);

type Check = (value: unknown) => boolean;
/** A type, a table with the types of some of its keys, or one type for every key of a table. */
type Shape = Check | { keys: { [key: string]: Shape } } | { each: Shape };

const text: Check = (value) => typeof value === "string";
const texts: Check = (value) => Array.isArray(value) && value.every(text);
const flag: Check = (value) => typeof value === "boolean";
const whole: Check = (value) => typeof value === "number" && Number.isInteger(value);

const runtime: Shape = {
  keys: {
    runtime_type: text,
    runtime_path: text,
    pod_annotations: texts,
    privileged_without_host_devices: flag,
    snapshotter: text,
    options: isTable,
  },
};
const cri: Shape = { keys: { containerd: { keys: { default_runtime_name: text, runtimes: { each: runtime } } } } };
const shape: Shape = {
  keys: {
    version: whole,
    imports: texts,
    disabled_plugins: texts,
    root: text,
    state: text,
    proxy_plugins: { each: { keys: { type: text, address: text } } },
    plugins: { keys: { "io.containerd.cri.v1.runtime": cri, "io.containerd.grpc.v1.cri": cri } },
  },
};

function wrongType(value: unknown, expected: Shape, path: string[]): string | undefined {
  const wrong = `cannot decode ${JSON.stringify(value)} of ${path.join(".")}`;
  if (typeof expected === "function") return expected(value) ? undefined : wrong;
  if (!isTable(value)) return wrong;
  for (const [key, child] of Object.entries(value)) {
    const shapeOfChild = "each" in expected ? expected.each : expected.keys[key];
    const found = shapeOfChild && wrongType(child, shapeOfChild, [...path, key]);
    if (found !== undefined) return found;
  }
  return undefined;
}
