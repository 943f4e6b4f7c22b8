import type { ContainerdEntry } from "../../runtime/spec.ts";
import { isTable, type Scalar, sameDocument, type Table, withoutZeros } from "./document.ts";

/** A handler and its containerd configuration. */
export interface HandlerEntry {
  handler: string;
  entry: ContainerdEntry;
}

/** The settings of one runtime: what an entry is apart from its proxy plugin, which is a table elsewhere. */
type Setting = Exclude<keyof ContainerdEntry, "proxyPlugin">;

/**
 * A runtime as a daemon serves it, ours or another, in words that 1.7 and 2.x share. What is absent is empty here. Journals
 * and bundles hold it: its keys are part of their formats.
 */
export type ServedHandler = { [Key in Exclude<Setting, "options">]-?: NonNullable<ContainerdEntry[Key]> } & {
  /** Without empty values: containerd 2.x fills in zero values for options whose type it knows. */
  options: Table;
};

interface Field<Value> {
  /** The key in a configuration file and in a dump of it. */
  toml: string;
  /** The key in the JSON of the CRI's verbose status. */
  status: string;
  read: (value: unknown) => Value;
}

const text = (value: unknown): string => (typeof value === "string" ? value : "");
const strings = (value: unknown): string[] => (Array.isArray(value) ? value.map(String) : []);
const flag = (value: unknown): boolean => value === true;
/** A file's integers are bigint, a status's are numbers. */
const plain = (value: unknown): unknown => (typeof value === "bigint" ? Number(value) : value);
/** Only what says something, in one form for files and statuses. */
const setOptions = (value: unknown): Table => {
  const set = withoutZeros(value);
  if (!isTable(set)) return {};
  return Object.fromEntries(
    Object.entries(set)
      .filter(([, one]) => one !== null)
      .map(([key, one]) => [key, plain(one)]),
  );
};

/** The one list of an entry's fields, in the order in which they are written. */
const entryFields: { readonly [Key in Setting]: Field<ServedHandler[Key]> } = {
  runtimeType: { toml: "runtime_type", status: "runtimeType", read: text },
  runtimePath: { toml: "runtime_path", status: "runtimePath", read: text },
  podAnnotations: { toml: "pod_annotations", status: "PodAnnotations", read: strings },
  containerAnnotations: { toml: "container_annotations", status: "ContainerAnnotations", read: strings },
  privilegedWithoutHostDevices: {
    toml: "privileged_without_host_devices",
    status: "privileged_without_host_devices",
    read: flag,
  },
  snapshotter: { toml: "snapshotter", status: "snapshotter", read: text },
  options: { toml: "options", status: "options", read: setOptions },
};
const fields = Object.entries(entryFields) as [Setting, Field<ServedHandler[Setting]>][];

/** Every field with the value that `find` finds for it; `entryFields` is complete, so the result is. */
const handlerOf = (find: (setting: Setting, field: Field<unknown>) => unknown): ServedHandler =>
  Object.fromEntries(
    fields.map(([setting, field]) => [setting, field.read(find(setting, field))]),
  ) as unknown as ServedHandler;

/** What a daemon that serves exactly the entry says of it. */
export const asServed = (entry: ContainerdEntry): ServedHandler => handlerOf((setting) => entry[setting]);

/** A runtime in the verbose status of the CRI. */
export const fromStatus = (runtime: unknown): ServedHandler =>
  handlerOf((_, { status }) => (isTable(runtime) ? runtime[status] : undefined));

/** A runtime's table in a configuration or in a dump of it. */
export const fromToml = (runtime: unknown): ServedHandler =>
  handlerOf((_, { toml }) => (isTable(runtime) ? runtime[toml] : undefined));

/** The entry in a configuration file: the keys of its table, and the tables below that. What it does not set is left out. */
export function toToml(entry: ContainerdEntry) {
  const scalars: Record<string, Scalar> = {};
  const subtables: Record<string, Record<string, Scalar>> = {};
  for (const [setting, { toml }] of fields) {
    const value = entry[setting];
    if (value === undefined) continue;
    if (typeof value === "object" && !Array.isArray(value)) subtables[toml] = value;
    else scalars[toml] = value;
  }
  return { scalars, subtables };
}

/** The same keys as a dump must show them. */
export function inDump(entry: ContainerdEntry): [key: string, value: unknown][] {
  const served = asServed(entry);
  return fields.map(([setting, { toml }]) => [toml, served[setting]]);
}

/**
 * Whether two tables mean the same to containerd, of ours alone or of a whole document of ours. Tools that write a file anew
 * spell out what is the default.
 */
export const sameSettings = (left: unknown, right: unknown): boolean =>
  sameDocument(withoutZeros(withoutDefaults(left)) ?? {}, withoutZeros(withoutDefaults(right)) ?? {});

function withoutDefaults(value: unknown): unknown {
  if (!isTable(value)) return value;
  const said = Object.entries(value).filter(
    ([key, one]) => !((key === "sandboxer" || key === "sandbox_mode") && one === "podsandbox"),
  );
  const { address } = value;
  const inner = (key: string, one: unknown) => {
    // A dump repeats a proxy plugin's address among what it exports.
    const isRepeated = key === "exports" && isTable(one) && address !== undefined && one.address === address;
    return withoutDefaults(isRepeated ? { ...one, address: undefined } : one);
  };
  return Object.fromEntries(said.map(([key, one]) => [key, inner(key, one)]));
}
