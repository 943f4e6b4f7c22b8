import { type Table, tableAt } from "./document.ts";

/**
 * containerd's CRI plugin by its ids: files of version 1 call it `cri`, those of version 2 by its full name. Since 2.0 it is
 * two, one for runtimes and one for images; files of version 3 and 4 name those.
 */
export const criPlugins = {
  legacy: "cri",
  version2: "io.containerd.grpc.v1.cri",
  version3: "io.containerd.cri.v1.runtime",
  images: "io.containerd.cri.v1.images",
} as const;

export const legacyPlugin = ["plugins", criPlugins.legacy] as const;
export const version2Plugin = ["plugins", criPlugins.version2] as const;
export const version3Plugin = ["plugins", criPlugins.version3] as const;
export const imagesPlugin = ["plugins", criPlugins.images] as const;

/** The section that holds the runtimes, in a dump: that is always in the newest version that its containerd knows. */
export function runtimeSectionOf(dump: unknown) {
  return tableAt(dump, [...version3Plugin, "containerd"]) ?? tableAt(dump, [...version2Plugin, "containerd"]);
}

/** The runtimes of a dump, and the name of the default one; undefined: it has no CRI section. */
export function runtimesIn(dump: unknown): { runtimes: Table; defaultRuntime: string } | undefined {
  const section = runtimeSectionOf(dump);
  if (section === undefined) return undefined;
  const name = section.default_runtime_name;
  return { runtimes: tableAt(section, ["runtimes"]) ?? {}, defaultRuntime: typeof name === "string" ? name : "" };
}

/** The names of the runtimes in a file of any version, whichever of them its containerd would read. */
export const runtimeNamesIn = (document: unknown): string[] =>
  [legacyPlugin, version2Plugin, version3Plugin].flatMap((plugin) =>
    Object.keys(tableAt(document, [...plugin, "containerd", "runtimes"]) ?? {}),
  );
