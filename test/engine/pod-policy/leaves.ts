import type { Json } from "./captured.ts";

type Path = (string | number)[];
type Members = { [key: string]: Json };

/** Every value of a request that has no members, with its place. Empty lists and objects are values, too. */
export function leavesOf(value: Json, path: Path = []): { path: Path; value: Json }[] {
  if (Array.isArray(value) && value.length > 0) return value.flatMap((one, index) => leavesOf(one, [...path, index]));
  if (typeof value === "object" && value !== null && !Array.isArray(value) && Object.keys(value).length > 0)
    return Object.entries(value).flatMap(([key, one]) => leavesOf(one, [...path, key]));
  return [{ path, value }];
}

/** Other values of the same type, as protobuf would have them. */
export function variantsOf(value: Json): Json[] {
  if (typeof value === "boolean") return [!value];
  if (typeof value === "number") return [value + 1, value + 1000];
  if (value === null) return [{}, { X: "x" }];
  if (Array.isArray(value)) return [["x"], [{}]];
  if (typeof value === "object") return [{ x: "x" }];
  const digits = value.replace(/\d(?!.*\d)/, (digit) => String((Number(digit) + 1) % 10));
  return [`${value}x`, `x${value}`, digits].filter((other) => other !== value);
}

export function withLeaf(input: Members, [first, ...rest]: Path, leaf: Json): Members {
  const copy = structuredClone(input);
  let parent: Json = copy;
  const path = [first, ...rest];
  for (const key of path.slice(0, -1)) parent = memberOf(parent, key);
  const key = path.at(-1);
  if (Array.isArray(parent) && typeof key === "number") parent[key] = leaf;
  else if (typeof parent === "object" && parent !== null && !Array.isArray(parent) && key !== undefined)
    parent[key] = leaf;
  return copy;
}

function memberOf(parent: Json, key: string | number | undefined): Json {
  const found =
    typeof parent === "object" && parent !== null
      ? Object.entries(parent).find(([name]) => name === String(key))
      : undefined;
  if (found === undefined) throw new Error(`no member ${key}`);
  return found[1];
}

const withoutRandom = (value: Json) => String(value).replace(/-[0-9a-f]{16}-/, "-");

/** Values that the host may choose, and why that is all right; some only as far as `like` says. */
export const freeLeaves = (
  container: string,
): { leaf: RegExp; reason: string; like?: (before: Json, after: Json) => boolean }[] => [
  {
    leaf: /^OCI\.Mounts\.\d+\.source$/,
    reason: "the random part of a copied file's name",
    like: (before, after) => withoutRandom(before) === withoutRandom(after),
  },
  { leaf: /^OCI\.Version$/, reason: "the agent does not look at it; releases of containerd differ" },
  {
    leaf: /^OCI\.Linux\.Resources\.(CPU|Memory)\./,
    reason: "how much of the guest's CPU and memory is the host's to give",
  },
  { leaf: /^OCI\.Linux\.CgroupsPath$/, reason: "what is above its own cgroup, which has its id for a name" },
  { leaf: /^OCI\.Process\.OOMScoreAdj$/, reason: "kubelet computes it from the node's memory" },
  {
    leaf: /^OCI\.Linux\.(MaskedPaths|ReadonlyPaths)\.\d+$/,
    reason: "more of /proc and /sys may be hidden than is needed",
  },
  {
    leaf: /^OCI\.Process\.Env\.\d+$/,
    reason: "addresses of services and of the pod, names of nodes: bounded patterns",
  },
  ...(container === "sandbox"
    ? [{ leaf: /^OCI\.Process\./, reason: "the agent starts the process of its own pause image instead" }]
    : []),
  ...(container === "work"
    ? [{ leaf: /^devices\.\d+\.options\.\d+$/, reason: "where it is in the VM's PCI, which the agent waits for" }]
    : []),
  ...(container === "db"
    ? [
        {
          leaf: /^(devices\.\d+\.id|OCI\.Linux\.Devices\.\d+\.(Major|Minor|FileMode|UID|GID))$/,
          reason: "which of the host's disks a claim is; the agent makes the device file anew",
        },
      ]
    : []),
];
