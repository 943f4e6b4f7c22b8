import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { parse, stringify, type TomlTable } from "smol-toml";

/**
 * Rewrites a TOML file as programs do that read it, change their data and write all of it: comments are gone, keys are
 * reordered. A program of its own, for nodes: FILE [HANDLER], which takes a runtime out.
 */
const [file = "", removed] = process.argv.slice(2);

const isTable = (value: unknown): value is TomlTable =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);

function runtimesOf({ plugins }: TomlTable): TomlTable {
  for (const id of ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]) {
    const plugin = isTable(plugins) ? plugins[id] : undefined;
    const containerd = isTable(plugin) ? plugin.containerd : undefined;
    if (isTable(containerd) && isTable(containerd.runtimes)) return containerd.runtimes;
  }
  throw new Error(`${file} names no runtimes`);
}

const document = parse(readFileSync(file, "utf8"));
if (removed !== undefined) delete runtimesOf(document)[removed];
writeFileSync(`${file}.new`, stringify(document));
renameSync(`${file}.new`, file);
