/** What containerd's configuration can look like on nodes: every shape that a parser or an editor may stumble over. */
export interface Shape {
  name: string;
  /** config.toml; undefined if there is none. */
  root: string | undefined;
  /** Files beside it, by name. */
  beside?: Record<string, string>;
}

const old = "io.containerd.grpc.v1.cri";
const renewed = "io.containerd.cri.v1.runtime";
const idOf = (version: number): string => (version < 3 ? old : renewed);

/** The settings whose loss breaks every pod: the cgroup driver and the pause image. */
const section = (id: string): string => `[plugins."${id}".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."${id}".containerd.runtimes.runc.options]
    SystemdCgroup = true
`;
const pause = (version: number): string =>
  version < 3
    ? `[plugins."${old}"]\n  sandbox_image = "registry.example/pause:1"\n`
    : `[plugins."io.containerd.cri.v1.images".pinned_images]\n  sandbox = "registry.example/pause:1"\n`;

const whole = (version: number, head = ""): string =>
  `version = ${version}\n${head}\n${pause(version)}${section(idOf(version))}`;

/** Root versions by plugin ids: what a file of each version may hold. */
const versions: Shape[] = [
  ...[2, 3, 4, 5].map((version) => ({ name: `version ${version}`, root: whole(version) })),
  ...[2, 3, 4].map((version) => ({ name: `version ${version}, nothing else`, root: `version = ${version}\n` })),
  { name: "version 1", root: `version = 1\n[plugins.cri]\n  sandbox_image = "registry.example/pause:1"\n` },
  {
    name: "no version, ids of version 1",
    root: '[plugins.cri.containerd.runtimes.runc]\nruntime_type = "io.containerd.runc.v2"\n',
  },
  { name: "no version, ids of version 2", root: section(old) },
  { name: "no version, ids of version 3", root: section(renewed) },
  { name: "version 2, ids of version 3 (AKS)", root: `version = 2\n${pause(3)}${section(renewed)}` },
  { name: "version 3, ids of version 2", root: `version = 3\n${pause(2)}${section(old)}` },
  { name: "version 2, both ids, both with runtimes", root: `version = 2\n${section(renewed)}${section(old)}` },
  {
    name: "version 2, both ids, runtimes in the older",
    root: `version = 2\n[plugins."${renewed}"]\nenable_selinux = false\n${section(old)}`,
  },
  { name: "version 2, both ids, runtimes in the newer", root: `version = 2\n${pause(2)}${section(renewed)}` },
  { name: "version 3 with streaming options", root: `${whole(3)}[plugins."${old}"]\n  stream_server_port = "10010"\n` },
];

/** A drop-in of each version and id under a root of each version; the root is edited, the drop-in belongs to others. */
const dropIns: Shape[] = [2, 3, 4].flatMap((root) =>
  [undefined, 2, 3, 4].flatMap((version) =>
    [old, renewed].map((id) => ({
      name: `version ${root}, imports a drop-in of ${version === undefined ? "no version" : `version ${version}`} with ids of version ${id === old ? 2 : 3}`,
      root: whole(root, 'imports = ["conf.d/*.toml"]'),
      beside: {
        "conf.d/foreign.toml": `${version === undefined ? "" : `version = ${version}\n`}[plugins."${id}".containerd.runtimes.foreign]\nruntime_type = "io.containerd.foreign.v2"\n`,
      },
    })),
  ),
);

const v2 = whole(2);
const shapes: Shape[] = [
  { name: "no file", root: undefined },
  { name: "0 bytes", root: "" },
  { name: "comments alone", root: "# nothing\n\n" },
  { name: "NUL bytes", root: "\0".repeat(64) },
  { name: "byte order mark", root: `\ufeff${v2}` },
  { name: "CRLF", root: v2.replaceAll("\n", "\r\n") },
  { name: "lone CR", root: v2.replaceAll("\n", "\r") },
  { name: "no final line end", root: v2.trimEnd() },
  { name: "tabs", root: v2.replaceAll("  ", "\t") },
  { name: "trailing white space", root: `${v2}   \n\t\n\n` },
  { name: "version as a string", root: v2.replace("version = 2", 'version = "2"') },
  { name: "version 0", root: "version = 0\n" },
  { name: "imports as a string", root: whole(2, 'imports = "x"') },
  { name: "imports empty", root: whole(2, "imports = []") },
  { name: "imports with an empty element", root: whole(2, "imports = [ , ]") },
  {
    name: "imports over several lines, with comments",
    root: whole(2, 'imports = [ # here\n  "conf.d/*.toml", # and there\n]'),
  },
  { name: "imports of a glob that matches nothing", root: whole(3, 'imports = ["/nowhere/*.toml"]') },
  { name: "imports of a file that is not there", root: whole(2, 'imports = ["nowhere.toml"]') },
  { name: "imports of itself", root: whole(2, 'imports = ["config.toml"]') },
  { name: "imports below a header", root: `${v2}[debug]\nimports = ["conf.d/*.toml"]\n` },
  { name: "a table twice", root: `${v2}${section(old)}` },
  {
    name: "plugins inline",
    root: `version = 2\nplugins = { "${old}" = { sandbox_image = "registry.example/pause:1" } }\n`,
  },
  {
    name: "runtimes inline",
    root: `version = 2\n[plugins."${old}".containerd]\nruntimes = { runc = { runtime_type = "io.containerd.runc.v2" } }\n`,
  },
  {
    name: "one runtime inline",
    root: `version = 2\n[plugins."${old}".containerd.runtimes]\nrunc = { runtime_type = "io.containerd.runc.v2" }\n`,
  },
  {
    name: "dotted keys at the root",
    root: `version = 2\nplugins."${old}".containerd.runtimes.runc.runtime_type = "io.containerd.runc.v2"\n`,
  },
  {
    name: "dotted keys in a section",
    root: `version = 2\n[plugins."${old}"]\ncontainerd.runtimes.runc.runtime_type = "io.containerd.runc.v2"\n`,
  },
  {
    name: "child before parent",
    root: `version = 2\n${section(old)}[plugins."${old}".containerd]\ndiscard_unpacked_layers = true\n`,
  },
  { name: "single quotes", root: v2.replaceAll(`"${old}"`, `'${old}'`) },
  { name: "both quotes", root: v2.replace(`"${old}"`, `'${old}'`) },
  { name: "spaces in headers", root: v2.replaceAll("[plugins.", "[ plugins . ") },
  { name: "[[plugins]]", root: "version = 2\n[[plugins]]\na = 1\n" },
  { name: "plugins as a number", root: "version = 2\nplugins = 2\n" },
  { name: "runtime_type as a number", root: v2.replace('"io.containerd.runc.v2"', "5") },
  { name: "unknown keys", root: `version = 2\nunheard_of = true\n[and.of]\nthis = 1\n${section(old)}` },
  {
    name: "another runtime and no runc",
    root: `version = 2\n[plugins."${old}".containerd.runtimes.crun]\nruntime_type = "io.containerd.runc.v2"\n`,
  },
  {
    name: "a default runtime that is not there",
    root: `${v2}[plugins."${old}".containerd]\ndefault_runtime_name = "gone"\n`,
  },
  { name: "disabled_plugins with cri", root: whole(2, 'disabled_plugins = ["cri"]') },
  { name: "disabled_plugins with the long id", root: whole(2, `disabled_plugins = ["${old}"]`) },
  { name: "disabled_plugins without cri", root: whole(2, 'disabled_plugins = ["io.containerd.internal.v1.opt"]') },
  {
    name: "another proxy plugin",
    root: `${v2}[proxy_plugins.stargz]\ntype = "snapshot"\naddress = "/run/stargz.sock"\n[proxy_plugins.stargz.exports]\nroot = "/x"\n`,
  },
  {
    name: "multi-line strings that look like tables",
    root: `version = 2\nroot = """\\\n  /var/lib/containerd"""\n${section(old)}`,
  },
];

export const allShapes: readonly Shape[] = [...versions, ...shapes, ...dropIns];
