import { describe, expect, test } from "vitest";
import { editConfiguration } from "../../../../node-installer/containerd/edit.ts";
import { editContext, locate, readConfiguration } from "../../../../node-installer/containerd/locate.ts";
import { flagValue, mergeUnit } from "../../../../node-installer/containerd/unit.ts";
import { type DistributionName, distributionNames } from "../../../../runtime/spec.ts";
import { MemoryHost } from "../../../fakes/memory-host.ts";
import { snp } from "./entries.ts";
import { importing, k3sFolder, type NodeOptions, nodeOf, refusal, trees, unitText, v2, v3 } from "./nodes.ts";

const found = async (name: DistributionName, options: NodeOptions = {}, declared = {}) =>
  await locate(nodeOf(name, options), { name, ...declared });

describe("each distribution", () => {
  test.each<[DistributionName, string, string, string, string]>([
    ["containerd", "root", "/etc/containerd/config.toml", "containerd.service", "/run/containerd/containerd.sock"],
    ["aks", "root", "/etc/containerd/config.toml", "containerd.service", "/run/containerd/containerd.sock"],
    ["k3s", "template", `${k3sFolder}/config-v3.toml.tmpl`, "k3s.service", "/run/k3s/containerd/containerd.sock"],
    [
      "rke2",
      "template",
      "/var/lib/rancher/rke2/agent/etc/containerd/config.toml.tmpl",
      "rke2-agent.service",
      "/run/k3s/containerd/containerd.sock",
    ],
    ["k0s", "drop-in", "/etc/k0s/containerd.d/contrast-runtime.toml", "k0sworker.service", "/run/k0s/containerd.sock"],
    [
      "microk8s",
      "template",
      "/var/snap/microk8s/current/args/containerd-template.toml",
      "snap.microk8s.daemon-containerd.service",
      "/var/snap/microk8s/common/run/containerd.sock",
    ],
  ])("%s", async (name, kind, file, unit, socket) => {
    expect(await found(name)).toMatchObject({ kind, file, unit, socket, version: "2.2.9" });
  });

  test.each(distributionNames)(
    "%s: the edit can be made and undone, and makes what the distribution renders serve the handler",
    async (name) => {
      const host = nodeOf(name);
      const located = await locate(host, { name });
      const before = await readConfiguration(host, located);
      const next = editConfiguration(before.edited, [snp], editContext(located, before));
      expect(next?.toString()).toContain(`runtimes.${snp.handler}]`);
      host.put(located.file, next ?? "");
      const after = await readConfiguration(host, located);
      expect(editConfiguration(after.edited, [snp], editContext(located, after))).toEqual(next);
      expect(editConfiguration(after.edited, [], editContext(located, after))).toEqual(before.edited);
    },
  );

  test.each([
    [
      "imported by the rendered file",
      importing(`${k3sFolder}/config-v3.toml.d`),
      "2.2.9",
      "config-v3.toml.d/contrast-runtime.toml",
    ],
    ["not imported", v3, "2.2.9", "config-v3.toml.tmpl"],
    ["of another folder", importing("/elsewhere"), "2.2.9", "config-v3.toml.tmpl"],
    ["of version 2", v2, "2.2.9", "config.toml.tmpl"],
    ["replaced by 1.7", `imports = ["${k3sFolder}/config.toml.d/*.toml"]\n${v2}`, "1.7.24", "config.toml.tmpl"],
  ])("k3s: drop-ins %s", async (_, rendered, version, file) => {
    const located = await found("k3s", { version, files: { [`${k3sFolder}/config.toml`]: rendered } });
    expect(located.file).toBe(`${k3sFolder}/${file}`);
  });

  test("k3s: a template that we create includes the built-in one, and is removed with the last handler", async () => {
    const host = nodeOf("k3s");
    const located = await locate(host, { name: "k3s" });
    const configuration = await readConfiguration(host, located);
    const text = editConfiguration(undefined, [snp], editContext(located, configuration))?.toString() ?? "";
    expect(text.split("\n")[0]).toBe('{{ template "base" . }}{{/* made by contrast-runtime */}}');
    expect(editConfiguration(Buffer.from(text), [], editContext(located, configuration))).toBeUndefined();
    const admins = `${text}# mine\n`;
    expect(editConfiguration(Buffer.from(admins), [], editContext(located, configuration))?.toString()).toContain(
      "# mine",
    );
  });

  test("a template that is not TOML stays as it is around the block", async () => {
    const template = '{{ template "base" . }}\n{{ if .NodeConfig.X }}\n[debug]\n  level = {{ .Level }}\n{{ end }}';
    const host = nodeOf("k3s", { files: { [`${k3sFolder}/config-v3.toml.tmpl`]: template } });
    const located = await locate(host, { name: "k3s" });
    const configuration = await readConfiguration(host, located);
    const next = editConfiguration(configuration.edited, [snp], editContext(located, configuration));
    expect(next?.toString().startsWith(template)).toBe(true);
    expect(editConfiguration(next, [], editContext(located, configuration))?.toString()).toBe(template);
  });

  test("a drop-in has the version and the ids of the file that imports it", async () => {
    for (const [rendered, line, id] of [
      [importing(`${k3sFolder}/config-v3.toml.d`), "version = 3", "cri.v1.runtime"],
      [
        importing(`${k3sFolder}/config-v3.toml.d`).replace("version = 3", "version = 4"),
        "version = 4",
        "cri.v1.runtime",
      ],
    ] as const) {
      const host = nodeOf("k3s", { version: "2.4.2", files: { [`${k3sFolder}/config.toml`]: rendered } });
      const located = await locate(host, { name: "k3s" });
      const configuration = await readConfiguration(host, located);
      const text = editConfiguration(undefined, [snp], editContext(located, configuration))?.toString();
      expect(text).toContain(`${line}\n`);
      expect(text).toContain(id);
    }
  });

  test("k0s: what it merged from our drop-in is not mistaken for somebody else's", async () => {
    const merged = `${v2}[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.${snp.handler}]\nruntime_type = "x"\n`;
    const host = nodeOf("k0s");
    const located = await locate(host, { name: "k0s" });
    const before = await readConfiguration(host, located);
    host.put(located.file, editConfiguration(undefined, [snp], editContext(located, before)) ?? "");
    host.put("/run/k0s/containerd-cri.toml", merged);
    const after = await readConfiguration(host, located);
    expect(editConfiguration(after.edited, [snp], editContext(located, after))).toEqual(after.edited);
    host.remove(located.file);
    expect(() => editConfiguration(undefined, [snp], editContext(located, after))).toThrow(/already/);
  });
});

describe("the node decides:", () => {
  test("the unit's configuration, socket and binary, drop-ins of the unit included", async () => {
    const host = nodeOf("containerd", {
      files: {
        "/etc/systemd/system/containerd.service.d/10-config.conf":
          "[Service]\nExecStart=\nExecStart=-/opt/bin/containerd \\\n  --config=/data/containerd.toml -a /data/c.sock\n",
      },
    });
    expect(await locate(host, { name: "containerd" })).toMatchObject({
      file: "/data/containerd.toml",
      socket: "/data/c.sock",
      binary: "/opt/bin/containerd",
    });
  });

  test("a drop-in that is masked by a link counts as none", async () => {
    const host = nodeOf("containerd");
    host.put("/usr/lib/systemd/system/containerd.service.d/10.conf", "[Service]\nKillMode=mixed\n");
    host.link("/etc/systemd/system/containerd.service.d/10.conf", "/dev/null");
    expect((await locate(host, { name: "containerd" })).unit).toBe("containerd.service");
  });

  test("of a script, which does not say what it starts, the install spec's overrides do", async () => {
    const host = nodeOf("containerd", {
      files: { "/etc/systemd/system/mine.service": unitText("/opt/start-containerd.sh") },
    });
    const declared = { name: "containerd", configPath: "/data/c.toml", socket: "/data/c.sock", unit: "mine" } as const;
    expect(await locate(host, declared)).toMatchObject({
      file: "/data/c.toml",
      socket: "/data/c.sock",
      unit: "mine.service",
    });
  });

  test("microk8s: a refresh of the snap, which points `current` elsewhere, changes neither the file nor its name", async () => {
    const tree = trees.microk8s ?? {};
    const entries = Object.entries(tree).map(([path, text]) => [path.replace("/current/", "/100/"), text]);
    const host = nodeOf("microk8s", {
      files: Object.fromEntries(entries),
      without: Object.keys(tree).filter((path) => path.includes("/current/")),
    });
    host.link("/var/snap/microk8s/current", "100");
    const { file } = await locate(host, { name: "microk8s" });
    expect(file).toBe("/var/snap/microk8s/current/args/containerd-template.toml");
    host.link("/var/snap/microk8s/100/args/containerd-template.toml", "/etc/template.toml");
    host.put("/etc/template.toml", "");
    expect((await locate(host, { name: "microk8s" })).file).toBe("/etc/template.toml");
  });

  test("a linked file is edited where it lies", async () => {
    const host = nodeOf("containerd", { without: ["/etc/containerd/config.toml"], files: { "/data/c.toml": v2 } });
    host.link("/etc/containerd/config.toml", "../../data/c.toml");
    expect((await locate(host, { name: "containerd" })).file).toBe("/data/c.toml");
  });

  test("of two units, the active one counts", async () => {
    const host = nodeOf("k3s", {
      files: { "/etc/systemd/system/k3s-agent.service": unitText("/usr/local/bin/k3s agent") },
    });
    host.programs.set("systemctl", (args) => ({ code: args.at(-1) === "k3s-agent.service" ? 0 : 3 }));
    expect((await locate(host, { name: "k3s" })).unit).toBe("k3s-agent.service");
  });

  test("a tree without systemd and binary is located by the declared version", async () => {
    const host = new MemoryHost({ files: { "/etc/containerd/config.toml": v2 } });
    const located = await locate(host, { name: "containerd", containerdVersion: "1.7.24" });
    expect(located).toMatchObject({ binary: undefined, version: "1.7.24", unit: "containerd.service" });
    expect((await refusal(locate(host, { name: "containerd" }))).code).toBe("unit-missing");
  });
});

test("an operating system with any other name is not refused", async () => {
  const files = { "/etc/os-release": "ID=constructor\n" };
  expect((await found("containerd", { files })).unit).toBe("containerd.service");
});

describe("refused", () => {
  const osRelease = (id: string): NodeOptions => ({ files: { "/etc/os-release": `NAME=x\nID=${id}\n` } });
  const withUnit = (text: string): NodeOptions => ({ files: { "/usr/lib/systemd/system/containerd.service": text } });
  test.each<[string, DistributionName, NodeOptions, string, RegExp]>([
    ["containerd 1.6", "containerd", { version: "1.6.20" }, "containerd-too-old", /1\.7 or 2\.x/],
    ["Talos", "containerd", osRelease("talos"), "host-unsupported", /Talos/],
    ["Bottlerocket", "containerd", osRelease("bottlerocket"), "host-unsupported", /Bottlerocket/],
    ["Container-Optimized OS", "containerd", osRelease('"cos"'), "host-unsupported", /Container-Optimized/],
    [
      "a unit that ends all pods",
      "containerd",
      withUnit(unitText("/usr/bin/containerd", "mixed")),
      "kill-mode",
      /KillMode=process/,
    ],
    [
      "a unit without KillMode",
      "containerd",
      withUnit("[Service]\nExecStart=/usr/bin/containerd\n"),
      "kill-mode",
      /control-group/,
    ],
    [
      "CRI-O",
      "containerd",
      { without: ["/usr/lib/systemd/system/containerd.service"], files: { "/etc/systemd/system/crio.service": "" } },
      "cri-o",
      /CRI-O/,
    ],
    [
      "no unit",
      "containerd",
      { without: ["/usr/lib/systemd/system/containerd.service"] },
      "unit-missing",
      /distribution\.unit/,
    ],
    [
      "a configuration of the operating system",
      "containerd",
      withUnit(unitText("/usr/bin/containerd -c /usr/share/c.toml")),
      "configuration-read-only",
      /start containerd with --config/,
    ],
    [
      "a configuration behind a variable",
      "containerd",
      // biome-ignore lint/suspicious/noTemplateCurlyInString: as a unit writes it
      withUnit(unitText("/usr/bin/env containerd --config ${CONFIG}")),
      "configuration-path-unknown",
      /configPath/,
    ],
    [
      "a device in place of the configuration",
      "containerd",
      withUnit(unitText("/usr/bin/containerd --config /dev/null")),
      "configuration-not-a-file",
      /device/,
    ],
    [
      "a socket behind a variable",
      "containerd",
      // biome-ignore lint/suspicious/noTemplateCurlyInString: as a unit writes it
      withUnit(unitText("/usr/bin/containerd --address ${SOCKET}")),
      "socket-path-unknown",
      /distribution\.socket/,
    ],
    [
      "k3s that never ran",
      "k3s",
      { without: [`${k3sFolder}/config.toml`], files: { "/var/lib/rancher/k3s/agent/x": "" } },
      "configuration-not-rendered",
      /Start it once/,
    ],
    [
      "microk8s without its template",
      "microk8s",
      { without: ["/var/snap/microk8s/current/args/containerd-template.toml"] },
      "template-missing",
      /Reinstall/,
    ],
    [
      "k0s whose file is the administrator's",
      "k0s",
      { files: { "/etc/k0s/containerd.toml": "version = 2\n" } },
      "configuration-not-managed",
      /k0s_managed/,
    ],
    [
      "k0s whose file imports nothing",
      "k0s",
      { files: { "/etc/k0s/containerd.toml": "# k0s_managed=true\nversion = 2\n" } },
      "configuration-not-imported",
      /imports neither/,
    ],
  ])("%s", async (_, name, options, code, message) => {
    const refused = await refusal(found(name, options));
    expect(refused.code).toBe(code);
    expect(refused.message).toMatch(message);
  });

  test("a masked unit, also on a tree without devices", async () => {
    const host = nodeOf("containerd");
    host.link("/etc/systemd/system/containerd.service", "/dev/null");
    expect((await refusal(locate(host, { name: "containerd" }))).code).toBe("unit-missing");
  });

  test("a distribution other than the node's, naming the value to set", async () => {
    for (const actual of Object.keys(trees) as DistributionName[]) {
      for (const declared of distributionNames) {
        if (declared === actual) continue;
        const { code, message } = await refusal(locate(nodeOf(actual), { name: declared }));
        expect(code).toBe("distribution-mismatch");
        expect(message).toContain("distribution.name");
        if (actual !== "containerd" && declared === "containerd")
          expect(message).toContain(`Set distribution.name to "${actual}"`);
      }
    }
  });
});

describe("unit files", () => {
  test("later texts override, an empty ExecStart resets", () => {
    const base = "# c\n[Unit]\nKillMode=none\n[Service]\nExecStart=/a b\nKillMode = process\n";
    expect(mergeUnit([base])).toEqual({ execStart: ["/a", "b"], killMode: "process" });
    expect(mergeUnit([base, "[Service]\nKillMode=\nExecStart=\n"])).toEqual({
      execStart: [],
      killMode: "control-group",
    });
    expect(mergeUnit([base, '[Service]\r\nExecStart=@!"/x y" \\\r\n  z\r\n'])).toMatchObject({
      execStart: ["/x y", "z"],
    });
  });

  test.each([
    [["-c", "/a"], "/a"],
    [["--config", "/a"], "/a"],
    [["--config=/a"], "/a"],
    [["-l", "debug"], undefined],
  ])("flag %j", (command, value) => {
    expect(flagValue(["/usr/bin/containerd", ...command], "c", "config")).toBe(value);
  });
});
