import type { Distribution } from "../../runtime/distributions.ts";
import { readIfThere } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { flagValue, type UnitFile } from "./unit.ts";

/** What a distribution's own program was told about where its containerd is; each with where that stands. */
export interface AgentSettings {
  data?: Setting;
  /** Of a containerd that the distribution did not start: `unix:///run/containerd/containerd.sock`. */
  endpoint?: Setting;
  /** Where it reads about registries. */
  registries?: Setting;
  /** What it reads when it starts, whether it is there or not: files, and a directory of more of them. */
  files?: string[];
}

interface Setting {
  value: string;
  by: string;
}

/** The command line overrides the environment, which overrides the configuration files, of which later ones count. */
export async function readAgent(
  host: Host,
  { agent, startFiles }: Distribution,
  unit: UnitFile | undefined,
): Promise<AgentSettings> {
  if (agent === undefined) return startFiles === undefined ? {} : { files: [...startFiles] };
  const { program } = agent;
  const settings: AgentSettings = {};
  if (program !== "k0s") {
    const { folder, files } = await configurationFiles(host, program, unit);
    for (const path of files)
      Object.assign(settings, settingsIn(((await readIfThere(host, path)) ?? "").toString(), path));
    const registries =
      flagValue(unit?.execStart ?? [], "private-registry") ??
      settings.registries?.value ??
      `/etc/rancher/${program}/registries.yaml`;
    settings.files = [...files, folder, registries].filter((path) => path.startsWith("/"));
  }
  const { path = "", execStart = [], environment = {} } = unit ?? {};
  const data = flagValue(execStart, "data-dir", ...(program === "k0s" ? [] : ["d"]));
  const variable = `${program.toUpperCase()}_DATA_DIR`;
  const inherited = Object.hasOwn(environment, variable) ? environment[variable] : undefined;
  if (inherited) settings.data = { value: inherited, by: path };
  if (data !== undefined) settings.data = { value: data, by: path };
  const endpoint = flagValue(execStart, "container-runtime-endpoint");
  if (endpoint !== undefined) settings.endpoint = { value: endpoint, by: path };
  return settings;
}

async function configurationFiles(
  host: Host,
  program: string,
  unit: UnitFile | undefined,
): Promise<{ folder: string; files: string[] }> {
  const { execStart = [], environment = {} } = unit ?? {};
  const variable = `${program.toUpperCase()}_CONFIG_FILE`;
  const named = Object.hasOwn(environment, variable) ? environment[variable] : undefined;
  const file = flagValue(execStart, "c", "config") ?? named ?? `/etc/rancher/${program}/config.yaml`;
  const folder = `${file}.d`;
  if (!file.startsWith("/")) return { folder, files: [] };
  const names = (await host.readDirectory(folder)).filter((name) => /\.ya?ml$/.test(name));
  return { folder, files: [file, ...names.map((name) => `${folder}/${name}`)] };
}

const keys = [
  ["data", "data-dir"],
  ["endpoint", "container-runtime-endpoint"],
  ["registries", "private-registry"],
] as const;

/** A top-level key with a text on its line, so no parser of YAML is needed. */
function settingsIn(text: string, by: string): AgentSettings {
  const settings: AgentSettings = {};
  for (const [name, key] of keys) {
    const [, value] = new RegExp(`^["']?${key}["']?[ \\t]*:[ \\t]*["']?([^\\s"'#]+)`, "m").exec(text) ?? [];
    if (value !== undefined) settings[name] = { value, by };
  }
  return settings;
}

/** Of a configuration file, which also holds tokens, only these settings; undefined: another file. */
export function outlineAgent(path: string, text: string): string | undefined {
  if (!/^\/etc\/rancher\/(?:k3s|rke2)\/config\.yaml(?:$|\.d\/)/.test(path)) return undefined;
  const settings = settingsIn(text, path);
  const lines = keys.flatMap(([name, key]) => {
    const value = settings[name]?.value;
    return value !== undefined && /^(?:unix:\/\/)?\/[\w/.-]{1,254}$/.test(value) ? [`${key}: ${value}\n`] : [];
  });
  return lines.join("");
}
