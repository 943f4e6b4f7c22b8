import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { compareDumps } from "../../node-installer/containerd/dumps.ts";
import { editConfiguration } from "../../node-installer/containerd/edit.ts";
import type { HandlerEntry } from "../../node-installer/containerd/entry.ts";
import { editContext, type Located, readConfiguration } from "../../node-installer/containerd/locate.ts";
import { validateConfiguration } from "../../node-installer/containerd/validate.ts";
import { versionInOutput } from "../../node-installer/containerd/version.ts";
import { createNodeHost } from "../../node-installer/host/node-host.ts";
import { containerdVersions } from "../../runtime/containerd-versions.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { containerdPrograms } from "../../tools/programs/pinned.ts";
import { entryOf } from "../unit/node-installer/containerd/entries.ts";

// Distributions that render containerd's configuration: real containerds read the effect of our template or drop-in,
// rendered as the distribution documents it, and it is what validation predicted.

const directory = mkdtempSync(join(tmpdir(), "containerd-rendered-"));
const host = createNodeHost({ root: "/" });
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function placed(entry: HandlerEntry): HandlerEntry {
  const folder = join(directory, "payload", entry.handler);
  mkdirSync(folder, { recursive: true });
  const [runtimePath, ConfigPath] = [join(folder, "shim"), join(folder, "configuration.toml")];
  writeFileSync(runtimePath, "");
  chmodSync(runtimePath, 0o755);
  writeFileSync(ConfigPath, "");
  return { ...entry, entry: { ...entry.entry, runtimePath, options: { ConfigPath } } };
}

const [first, second] = [
  placed(entryOf("aks-clh-snp", "0123abcd", true)),
  placed(entryOf("metal-qemu-tdx", "4567cdef")),
];
/** One is installed, then replaced by another, a third is added, and all are removed. */
const steps: HandlerEntry[][] = [[first], [second], [first, second], []];

const base = (version: number): string => {
  const id = version < 3 ? "io.containerd.grpc.v1.cri" : "io.containerd.cri.v1.runtime";
  return `version = ${version}
[plugins."${id}".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."${id}".containerd.runtimes.runc.options]
  SystemdCgroup = true
`;
};

/** What is edited, and how the distribution makes `configuration` from it. */
interface Layout {
  name: string;
  kind: "template" | "drop-in";
  version: number;
  only?: "2.x";
  templateBase?: string;
  template?: string;
  render(edited: string | undefined, dropIn: string): string;
}

const k3sBase = '{{ template "base" . }}{{/* made by contrast-runtime */}}';
const layouts: Layout[] = [
  {
    name: "k3s, built-in template",
    kind: "template",
    version: 2,
    templateBase: k3sBase,
    render: (template) => template?.replace(k3sBase, base(2)) ?? base(2),
  },
  {
    name: "k3s, the administrator's template",
    kind: "template",
    version: 3,
    only: "2.x",
    templateBase: k3sBase,
    template: '{{ template "base" . }}\n[debug]\n  level = "{{ .Level }}"',
    render: (template = "") => template.replace('{{ template "base" . }}', base(3)).replace("{{ .Level }}", "info"),
  },
  {
    name: "k3s, drop-ins",
    kind: "drop-in",
    version: 3,
    only: "2.x",
    render: (_, dropIn) => `imports = ["${dirname(dropIn)}/*.toml"]\n${base(3)}`,
  },
  {
    name: "microk8s",
    kind: "template",
    version: 2,
    template: base(2).replace("runc.v2", "$" + "{RUNTIME}"),
    render: (template = "") => template.replace("$" + "{RUNTIME}", "runc.v2"),
  },
  {
    // it merges tables and rewrites them without comments
    name: "k0s",
    kind: "drop-in",
    version: 2,
    render: (dropIn) =>
      base(2) +
      (dropIn ?? "")
        .split("\n")
        .filter((line) => !/^(#|version = )/.test(line))
        .join("\n"),
  },
];

describe.each([...containerdVersions])("containerd %s", (minor) => {
  let binary: string;
  let version: string;

  beforeAll(async () => {
    binary = join(await containerdPrograms(minor, toStderr), "containerd");
    version = versionInOutput(spawnSync(binary, ["--version"], { encoding: "utf8" }).stdout) ?? "";
  });

  const dump = (file: string): string => {
    const { status, stdout, stderr } = spawnSync(binary, ["-c", file, "config", "dump"], { encoding: "utf8" });
    expect([status, stderr]).toEqual([0, expect.any(String)]);
    return stdout;
  };

  const fitting = layouts.filter(({ only }) => only === undefined || minor.startsWith("2."));
  test.each(fitting)("$name", async ({ name, kind, templateBase, template, render }) => {
    const folder = join(directory, `${minor}-${name.replaceAll(/\W+/g, "-")}`);
    const configuration = join(folder, "config.toml");
    const file = join(folder, "config.d", kind === "drop-in" ? "contrast-runtime.toml" : "config.toml.tmpl");
    mkdirSync(dirname(file), { recursive: true });
    if (template !== undefined) writeFileSync(file, template);
    writeFileSync(configuration, render(template, file));
    const located: Located = {
      distribution: "k3s",
      kind,
      file,
      configuration,
      templateBase,
      unit: "k3s.service",
      socket: "",
      restart: "systemctl",
      binary,
      version,
      dataDirectories: [],
      templates: [],
      agentFiles: [],
    };
    const original = dump(configuration);
    for (const entries of steps) {
      const before = await readConfiguration(host, located);
      const next = editConfiguration(before.edited, entries, editContext(located, before));
      await validateConfiguration(host, located, next, entries);
      if (next === undefined) rmSync(file);
      else writeFileSync(file, next);
      writeFileSync(configuration, render(next?.toString(), file));
      expect(
        compareDumps(original, dump(configuration), { entries, removed: { handlers: [], proxyPlugins: [] } }),
      ).toEqual([]);
    }
    expect((await readConfiguration(host, located)).edited?.toString()).toBe(template);
  });
});
