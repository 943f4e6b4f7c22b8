import { dirname, posix } from "node:path";
import type { Distribution, Edited } from "../../runtime/distributions.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { readIfThere } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { at, decode, parseDocument, type Table } from "./document.ts";
import type { EditContext } from "./edit.ts";
import { spansIn } from "./fence.ts";
import { type Import, importMatches, importsOf, readImports } from "./imports.ts";
import { configOf, isPath, type Started } from "./started.ts";
import { parseContainerdVersion } from "./version.ts";

/** A file from which our tables reach containerd. */
export interface Place {
  kind: EditContext["kind"];
  /** The file to edit, with links resolved; it need not exist. */
  file: string;
  /**
   * The file that containerd reads: `file` itself under the name that containerd is given (imports are relative to the
   * link, not to its target), or what the distribution renders from `file`, or what imports it.
   */
  configuration: string;
  /** First line of a template that we make; for a drop-in, of one that an earlier version may have left. */
  templateBase: string | undefined;
  /** The templates that the distribution looks for, whether they are there or not: the next start may render another. */
  templates: readonly string[];
  /** A distribution.configPath that is not followed, because our tables stand in `file` and containerd reads that. */
  notFollowed?: string;
}

/** What decides between the places that a node has. */
export interface Wishes {
  /** distribution.configPath */
  configPath: string | undefined;
  /**
   * The file that holds our tables already. It stays as long as containerd reads it, whatever configPath says: a move would
   * be a restart for nothing, and both files would have the tables until the old one is cleaned, which is after the gate.
   */
  installed: string | undefined;
}

/** The place to edit; refuses a `configPath` that containerd would never read, or that the distribution overwrites. */
export async function findPlace(
  host: Host,
  { name, edited }: Distribution,
  started: Started | undefined,
  version: string,
  { configPath, installed }: Wishes,
): Promise<Place> {
  if (edited.kind === "root") {
    const root = await rootPlace(host, edited.file, started, configPath);
    return (await importedPlace(host, root, installed)) ?? root;
  }
  const { places, unread } =
    edited.kind === "rendered"
      ? await renderedPlaces(host, name, edited, version, [configPath, installed])
      : await dropInPlaces(host, name, edited, [configPath, installed]);
  const [preferred] = places;
  const kept = await holdingOurs(host, places, installed);
  if (configPath === undefined) return await existing(host, name, kept ?? preferred);
  const wanted = await ownName(host, configPath);
  const chosen = places.find(({ file }) => file === wanted);
  if (chosen !== undefined) {
    const isFollowed = kept === undefined || kept === chosen;
    return await existing(host, name, isFollowed ? chosen : { ...kept, notFollowed: configPath });
  }
  const paths = [...new Set([configPath, wanted])];
  const why = unread.find(({ path }) => paths.includes(path))?.why ?? `${name} reads no such file on this node`;
  throw new Refusal(
    "configuration-path-unread",
    `distribution.configPath is ${configPath}, but ${why}. Leave configPath out: on this node the installer then uses ${(kept ?? preferred).file}.`,
  );
}

/** Where our tables are: by the journal, or because our block stands there; a second one would repeat its tables. */
async function holdingOurs(
  host: Host,
  places: readonly Place[],
  installed: string | undefined,
): Promise<Place | undefined> {
  const known = places.find(({ file }) => file === installed);
  if (known !== undefined && (await host.stat(known.file)) !== undefined) return known;
  for (const place of places) if (await hasOurs(host, place.file)) return place;
  return undefined;
}

const hasOurs = async (host: Host, path: string): Promise<boolean> =>
  spansIn((await readIfThere(host, path))?.toString("utf8") ?? "").length > 0;

/** At least one, best first; and paths that somebody may think of, with the reason why they are none. */
interface Places {
  places: [Place, ...Place[]];
  unread: { path: string; why: string }[];
}

async function rootPlace(
  host: Host,
  byDefault: string,
  started: Started | undefined,
  configPath: string | undefined,
): Promise<Place> {
  const read = started === undefined ? byDefault : configOf(started);
  if (configPath === undefined && !isPath(read)) {
    throw new Refusal(
      "configuration-path-unknown",
      `${started?.by} starts containerd with --config ${read}, which is not an absolute path. Set distribution.configPath to the absolute path that containerd really uses.`,
    );
  }
  const path = configPath ?? read;
  const target = await host.realpath(path);
  if (started !== undefined && isPath(read) && target !== (await host.realpath(read))) {
    throw new Refusal(
      "configuration-path-unread",
      `distribution.configPath is ${path}, but containerd reads ${read} (${started.by}). Leave configPath out, or start containerd with --config ${path}.`,
    );
  }
  return {
    kind: "root",
    file: await writable(host, target),
    configuration: path,
    templateBase: undefined,
    templates: [],
  };
}

/**
 * Where our tables are if somebody has put another file in front of the one that has them: containerd reads them from
 * there, and a second copy in the new file would outlive their removal from the old one.
 */
async function importedPlace(host: Host, root: Place, installed: string | undefined): Promise<Place | undefined> {
  if (installed === root.file || (await hasOurs(host, root.file))) return undefined;
  for (const { by, path } of await importsBelow(host, root.configuration)) {
    const file = await host.realpath(path);
    if (file === root.file || (file !== installed && !(await hasOurs(host, file)))) continue;
    if (by === root.configuration) return { ...root, kind: "imported", file: await writable(host, file) };
    throw new Refusal(
      "configuration-imported",
      `containerd reads ${root.configuration}, and what contrast-runtime installed stands in ${path}, which it reads only because ${by} imports that. Name ${path} itself in the imports of ${root.configuration}, restart containerd, and run again.`,
    );
  }
  return undefined;
}

/** What containerd reads because of this file, as far as it is there; empty if it loads none of it, as is said elsewhere. */
async function importsBelow(host: Host, file: string): Promise<Import[]> {
  const bytes = await readIfThere(host, file);
  if (bytes === undefined) return [];
  try {
    const imports = await readImports(host, parseDocument(decode(bytes, file), file), file);
    return imports.filter(({ document }) => document !== undefined);
  } catch (error) {
    if (error instanceof Refusal) return [];
    throw error;
  }
}

async function renderedPlaces(
  host: Host,
  name: string,
  { configuration, byVersion, templateBase }: Edited & { kind: "rendered" },
  version: string,
  others: readonly (string | undefined)[],
): Promise<Places> {
  const document = await readRendered(host, name, configuration);
  const rendered = Number(at(document, ["version"]) ?? 1);
  const forVersion = byVersion.find(({ from }) => rendered >= from);
  if (forVersion === undefined) {
    throw new Refusal(
      "configuration-not-rendered",
      `${configuration} has version ${rendered}, for which ${name} has no template. Upgrade ${name}.`,
    );
  }
  const { template, dropIn } = forVersion;
  const imports = importsOf(document, configuration);
  // containerd 1.x lets a drop-in replace a plugin's whole section, so there we edit the template.
  const mayDropIn = dropIn !== undefined && parseContainerdVersion(version).newestConfiguration > 2;
  const dropIns = mayDropIn
    ? beside(dropIn, others).filter((path) => imports.some((pattern) => importMatches(pattern, path)))
    : [];
  const file = await ownName(host, template);
  const templates = byVersion.map((one) => (one === forVersion ? file : one.template));
  const last: Place = { kind: "template", file, configuration, templateBase, templates };
  const [first = last, ...more] = [...dropIns.map((path): Place => ({ ...last, kind: "drop-in", file: path })), last];
  const without = `${name} renders ${configuration} with version ${rendered} and without that file`;
  return {
    places: [first, ...more],
    unread: [
      { path: configuration, why: `${name} renders it anew at each start, and an edit would be lost` },
      ...byVersion.map((one) => ({ path: one.template, why: without })),
    ],
  };
}

/** The distribution's own drop-in, then others of its folder. */
function beside(dropIn: string, others: readonly (string | undefined)[]): string[] {
  const isBeside = (path: string | undefined): path is string =>
    path !== undefined && dirname(path) === dirname(dropIn) && path.endsWith(".toml");
  return [...new Set([dropIn, ...others.filter(isBeside)])];
}

const dropInPlace = (file: string, configuration: string): Place => ({
  kind: "drop-in",
  file,
  configuration,
  templateBase: undefined,
  templates: [],
});

async function dropInPlaces(
  host: Host,
  name: string,
  { file, root, merged }: Edited & { kind: "drop-in" },
  others: readonly (string | undefined)[],
): Promise<Places> {
  const bytes = await readIfThere(host, root.file);
  const text = bytes === undefined ? "" : decode(bytes, root.file);
  if (bytes !== undefined && text.split(/\r?\n/, 1)[0]?.trim() !== root.firstLine) {
    throw new Refusal(
      "configuration-not-managed",
      `${root.file} does not start with "${root.firstLine}", so ${name} neither manages it nor reads drop-ins. Restore that first line to let ${name} manage the file again, and move your own settings to a drop-in.`,
    );
  }
  if (bytes === undefined) throw notRendered(root.file, name);
  const imports = importsOf(parseDocument(text, root.file), root.file);
  const direct = imports.some((pattern) => importMatches(pattern, file));
  if (!direct && !imports.includes(merged)) {
    throw new Refusal(
      "configuration-not-imported",
      `${root.file} imports neither ${merged} nor ${dirname(file)}/*.toml, so no drop-in reaches containerd. Restart ${name} so that it rewrites the file, or upgrade it.`,
    );
  }
  // A merged file of before an upgrade may still be there.
  const configuration = direct ? root.file : merged;
  if (!direct) await readRendered(host, name, merged);
  const [own = file, ...more] = beside(file, others);
  return {
    places: [dropInPlace(own, configuration), ...more.map((path) => dropInPlace(path, configuration))],
    unread: [root.file, merged].map((path) => ({
      path,
      why: `${name} writes it anew at each start, and an edit would be lost`,
    })),
  };
}

async function readRendered(host: Host, name: string, file: string): Promise<Table> {
  const bytes = await readIfThere(host, file);
  if (bytes === undefined) throw notRendered(file, name);
  return parseDocument(decode(bytes, file), file);
}

const notRendered = (file: string, name: string): Refusal =>
  new Refusal(
    "configuration-not-rendered",
    `${file} is not there: ${name} has not rendered containerd's configuration yet. Start it once, then run again.`,
  );

/** A template that does not exist is made, if the distribution has a base for it. */
async function existing(host: Host, name: string, place: Place): Promise<Place> {
  const { kind, file, templateBase } = place;
  if (kind !== "template" || templateBase !== undefined || (await host.stat(file)) !== undefined) return place;
  throw new Refusal(
    "template-missing",
    `${file}, from which ${name} renders its configuration, is missing. Reinstall ${name}.`,
  );
}

/**
 * The path that survives an upgrade: a parent folder may be a link that each refresh of a snap points elsewhere, to a
 * copy of the file that includes our block. A link is followed only if it is the file itself.
 */
async function ownName(host: Host, path: string): Promise<string> {
  const target = await host.realpath(path);
  const beside = posix.join(await host.realpath(dirname(path)), posix.basename(path));
  return target === beside ? path : target;
}

/** Refuses file systems that distributions mount read-only by design, and paths that are not regular files. */
async function writable(host: Host, file: string): Promise<string> {
  if (/^\/(usr|snap|nix)\//.test(file)) {
    throw new Refusal(
      "configuration-read-only",
      `containerd reads ${file}, which belongs to the operating system and must not be changed. Copy it to /etc/containerd/config.toml, and start containerd with --config /etc/containerd/config.toml (systemctl edit its unit: an ExecStart, or the variable that the ExecStart has it from); then run again.`,
    );
  }
  const kind = /^\/(dev|proc|sys)\//.test(file) ? "other" : ((await host.stat(file))?.kind ?? "file");
  if (kind !== "file") {
    throw new Refusal(
      "configuration-not-a-file",
      `${file} is a ${kind === "other" ? "device, pipe or socket" : kind}, but must be containerd's configuration file. Start containerd with --config and a file, or correct distribution.configPath.`,
    );
  }
  return file;
}
