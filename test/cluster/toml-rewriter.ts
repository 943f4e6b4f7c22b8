import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { parse, stringify, type TomlTable } from "smol-toml";

/**
 * Rewrites a TOML file as programs do that read it, change their data and write all of it: comments are gone, keys are
 * reordered. A program of its own, for nodes: FILE [nvidia], which adds a runtime as nvidia-ctk does.
 */
const [file = "", added] = process.argv.slice(2);

const isTable = (value: unknown): value is TomlTable =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
/** nvidia-ctk's library sorts them. */
const sorted = (value: TomlTable): TomlTable =>
  Object.fromEntries(
    Object.entries(value)
      .toSorted(([one], [other]) => (one < other ? -1 : 1))
      .map(([key, each]) => [key, isTable(each) ? sorted(each) : each]),
  );

function runtimesOf(document: TomlTable): TomlTable {
  const { plugins } = document;
  for (const id of ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]) {
    const plugin = isTable(plugins) ? plugins[id] : undefined;
    const containerd = isTable(plugin) ? plugin.containerd : undefined;
    if (isTable(containerd) && isTable(containerd.runtimes)) return containerd.runtimes;
  }
  throw new Error(`${file} names no runtimes`);
}

let document = parse(readFileSync(file, "utf8"));
if (added === "nvidia") {
  const options = { BinaryName: "/usr/bin/nvidia-container-runtime" };
  runtimesOf(document).nvidia = { runtime_type: "io.containerd.runc.v2", options };
  document = sorted(document);
}
writeFileSync(`${file}.new`, stringify(document));
renameSync(`${file}.new`, file);
