import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { takeSnapshot } from "../../../../node-installer/commands/snapshot.ts";
import { decode, parseDocument } from "../../../../node-installer/containerd/document.ts";
import { locate } from "../../../../node-installer/containerd/locate.ts";
import { bundleHost } from "../../../../node-installer/host/bundle.ts";
import type { Host } from "../../../../node-installer/host/host.ts";
import { journalPath } from "../../../../node-installer/host/journal.ts";
import { containerdOn, type Daemon } from "../../../../node-installer/install/daemon.ts";
import { planFor, replayingDaemon } from "../../../../node-installer/install/dry-run.ts";
import { Refusal } from "../../../../runtime/refusal.ts";
import { distributionNames, type InstallSpec } from "../../../../runtime/spec.ts";
import { MemoryHost } from "../../../fakes/memory-host.ts";
import { specOf } from "../../review/bundles.ts";
import { nodeOf, unitText } from "./nodes.ts";

/*
 * Nodes as public reports describe them, re-created as file trees (test/fixtures/nodes): what the installer would do
 * there, or why it refuses, and that following its advice leads on.
 */

const nodes = join(import.meta.dirname, "../../../fixtures/nodes");

function tree(name: string, below = ""): Record<string, Buffer> {
  const files: Record<string, Buffer> = {};
  for (const entry of readdirSync(join(nodes, name, below), { withFileTypes: true })) {
    const path = `${below}/${entry.name}`;
    if (entry.isDirectory()) Object.assign(files, tree(name, path));
    else files[path] = readFileSync(join(nodes, name, path));
  }
  return files;
}

type Distribution = InstallSpec["distribution"];
interface Outcome {
  /** What would be edited, or the code of the refusal. */
  result: string;
  /** The file's new text, or the refusal's sentence. */
  text: string;
  notices: string[];
}

const planOn = (host: MemoryHost, distribution: Distribution): Promise<Outcome> =>
  planWith(host, containerdOn(host, distribution), distribution);

async function planWith(host: Host, daemon: Daemon, distribution: Distribution): Promise<Outcome> {
  const spec = { ...specOf("00000001"), distribution };
  try {
    const { changes, notices } = await planFor(host, daemon, spec);
    const change = changes.find(({ path }) => !path.startsWith("/opt/edgeless/"));
    return { result: `${change?.action} ${change?.path}`, text: change?.content?.toString() ?? "", notices };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return { result: error.code, text: error.message, notices: [] };
  }
}

const plan = (name: string, distribution: Distribution, files: Record<string, string> = {}): Promise<Outcome> =>
  planOn(new MemoryHost({ files: { ...tree(name), ...files } }), distribution);

const k3s = "/var/lib/rancher/k3s/agent/etc/containerd";
const k0s = "/etc/k0s/containerd.d";
const rke2 = "/data/rke2/agent/etc/containerd/config-v3.toml.d/contrast-runtime.toml";

describe("k3s, whose rendered file imports drop-ins", () => {
  const version = { name: "k3s", containerdVersion: "2.2.1" } as const;
  test.each<[string, string, string | undefined, string, RegExp]>([
    ["k3s", "no configPath", undefined, `create ${k3s}/config-v3.toml.d/contrast-runtime.toml`, /^version = 3$/m],
    [
      "k3s",
      "the template, which is made with its base",
      `${k3s}/config-v3.toml.tmpl`,
      `create ${k3s}/config-v3.toml.tmpl`,
      /^\{\{ template "base" \. \}\}/,
    ],
    [
      "k3s-with-template",
      "the administrator's template, which is no TOML",
      `${k3s}/config-v3.toml.tmpl`,
      `edit ${k3s}/config-v3.toml.tmpl`,
      /^\{\{ template "base" \. \}\}\n\n\[plugins.*crun"\]\n/,
    ],
    [
      "k3s",
      "another drop-in",
      `${k3s}/config-v3.toml.d/50-ours.toml`,
      `create ${k3s}/config-v3.toml.d/50-ours.toml`,
      /^version = 3$/m,
    ],
    ["k3s", "the rendered file", `${k3s}/config.toml`, "configuration-path-unread", /renders it anew at each start/],
    [
      "k3s",
      "the template of another version, with which k3s would render another file",
      `${k3s}/config.toml.tmpl`,
      "configuration-path-unread",
      /with version 3 and without that file/,
    ],
    ["k3s", "plain containerd's", "/etc/containerd/config.toml", "configuration-path-unread", /reads no such file/],
  ])("%s: %s", async (name, _, configPath, result, text) => {
    const planned = await plan(name, { ...version, ...(configPath !== undefined && { configPath }) });
    expect(planned.result).toBe(result);
    expect(planned.text).toMatch(text);
    // The advice.
    if (planned.result === "configuration-path-unread") {
      const file = /the installer then uses (\S+)\.$/.exec(planned.text)?.[1];
      expect((await plan(name, version)).result).toBe(`create ${file}`);
      expect((await plan(name, { ...version, configPath: file })).result).toBe(`create ${file}`);
    }
  });

  test("another socket than the one that k3s starts containerd with", async () => {
    const { result, text } = await plan("k3s", { ...version, socket: "/run/containerd/containerd.sock" });
    expect(result).toBe("socket-not-listened-on");
    expect(text).toMatch(/\/run\/containerd\/containerd\.sock, but .* \/run\/k3s\/containerd\/containerd\.sock/);
  });

  test("a unit that starts something else", async () => {
    const files = {
      "/etc/systemd/system/mine.service": "[Service]\nExecStart=/usr/bin/containerd\nKillMode=process\n",
    };
    expect((await plan("k3s", { ...version, unit: "mine.service" }, files)).result).toBe("unit-of-another-program");
  });
});

describe("k3s that uses a containerd which it does not start", () => {
  const containerd = { name: "containerd", containerdVersion: "2.2.1" } as const;

  test("is plain containerd, though k3s and its directories are there; and k3s' own refusal says so", async () => {
    const refused = await plan("k3s-external-containerd", { name: "k3s", containerdVersion: "2.2.1" });
    expect(refused.result).toBe("external-containerd");
    expect(refused.text).toContain('Set distribution.name to "containerd"');
    expect((await plan("k3s-external-containerd", containerd)).result).toBe("edit /etc/containerd/config.toml");
  });

  test("but not if that listens elsewhere than where k3s looks", async () => {
    const unit = "[Service]\nExecStart=/usr/bin/containerd --address /run/other/containerd.sock\nKillMode=process\n";
    const files = { "/usr/lib/systemd/system/containerd.service": unit };
    const { result, text } = await plan("k3s-external-containerd", containerd, files);
    expect(result).toBe("external-containerd");
    expect(text).toMatch(/unix:\/\/\/run\/containerd\/containerd\.sock .* listens on \/run\/other/);
  });

  test("a unit that systemd does not run is no evidence", async () => {
    const host = nodeOf("containerd", {
      files: { "/etc/systemd/system/k3s.service": unitText("/usr/bin/k3s server") },
    });
    const distribution = { name: "containerd" } as const;
    expect((await planOn(host, distribution)).result).toBe("distribution-mismatch");
    host.programs.set("systemctl", ([verb]) => ({ code: verb === "is-active" ? 3 : 0 }));
    expect((await planOn(host, distribution)).result).toBe("edit /etc/containerd/config.toml");
  });

  test("directories that an earlier distribution left behind are no evidence", async () => {
    const left = { "/var/lib/k0s/x": "", "/etc/k0s/containerd.toml": "", "/var/lib/rancher/rke2/agent/x": "" };
    expect((await plan("k3s-external-containerd", containerd, left)).result).toBe("edit /etc/containerd/config.toml");
  });
});

describe("RKE2 with its data elsewhere", () => {
  const version = { containerdVersion: "2.2.2" };

  test.each(["rke2-data-dir", "rke2-data-dir-with-default-left-over"])("%s", async (name) => {
    expect((await plan(name, { name: "rke2", ...version })).result).toBe(`create ${rke2}`);
    const located = await locate(new MemoryHost({ files: tree(name) }), { name: "rke2", ...version });
    expect(located).toMatchObject({
      socket: "/run/k3s/containerd/containerd.sock",
      dataDirectories: ["/data/rke2/agent/containerd", "/run/k3s/containerd"],
    });
  });

  test.each([
    ["a later file", { "/etc/rancher/rke2/config.yaml.d/50.yaml": '# c\n"data-dir": "/other/rke2" # moved\n' }],
    ["the environment's file", { "/etc/default/rke2-agent": "# c\nRKE2_TOKEN=x\nRKE2_DATA_DIR=/other/rke2\n" }],
    [
      "an argument",
      {
        "/etc/systemd/system/rke2-agent.service.d/a.conf":
          "[Service]\nExecStart=\nExecStart=/usr/local/bin/rke2 agent --data-dir=/other/rke2\n",
      },
    ],
  ])("%s decides", async (_, files) => {
    const folder = "/other/rke2/agent/etc/containerd";
    const rendered = `version = 3\nimports = ["${folder}/config-v3.toml.d/*.toml"]\n`;
    const { result } = await plan(
      "rke2-data-dir",
      { name: "rke2", ...version },
      {
        ...files,
        [`${folder}/config.toml`]: rendered,
      },
    );
    expect(result).toBe(`create ${folder}/config-v3.toml.d/contrast-runtime.toml`);
  });

  test("a data directory that depends on something else is refused by its file's name", async () => {
    const files = { "/etc/rancher/rke2/config.yaml.d/50.yaml": "data-dir: $HOME/rke2\n" };
    const { result, text } = await plan("rke2-data-dir", { name: "rke2", ...version }, files);
    expect(result).toBe("data-directory-unknown");
    expect(text).toContain("/etc/rancher/rke2/config.yaml.d/50.yaml gives rke2 the data directory $HOME/rke2");
  });

  test("a bundle of the node leads to the same plan, and holds no token", async () => {
    const declared = { name: "rke2", ...version } as const;
    const files = {
      "/etc/systemd/system/rke2-agent.service.d/a.conf": "[Service]\nEnvironmentFile=/etc/systemd/system/rke2.env\n",
      "/etc/systemd/system/rke2.env": "RKE2_TOKEN=CANARY\nRKE2_CONFIG_FILE=/etc/rancher/rke2/config.yaml\n",
      "/etc/rancher/rke2/config.yaml": "token: CANARY\ndata-dir: /data/rke2/\n",
    };
    const spec = { ...specOf("00000001"), distribution: declared };
    const host = new MemoryHost({ files: { ...tree("rke2-data-dir"), ...files } });
    const bundle = await takeSnapshot(host, spec, "node-1");
    expect(JSON.stringify(bundle)).not.toContain("CANARY");
    const replayed = bundleHost(bundle);
    const { changes } = await planFor(replayed, replayingDaemon(containerdOn(replayed, declared), bundle), spec);
    expect(changes.map(({ path }) => path)).toContain(rke2);
  });

  test("no other distribution's name leads to a file that nothing reads", async () => {
    for (const unit of [undefined, "rke2-agent.service"]) {
      const { result, text } = await plan("rke2-data-dir", {
        name: "containerd",
        ...version,
        ...(unit !== undefined && { unit }),
      });
      expect(result).toBe("distribution-mismatch");
      expect(text).toContain('Set distribution.name to "rke2"');
    }
  });
});

test.each(readdirSync(nodes))("a bundle of %s leads to the same plan as the node", async (name) => {
  for (const distribution of distributionNames.filter((one) => one === "containerd" || name.startsWith(one))) {
    const declared = { name: distribution, containerdVersion: name === "k0s-1.35" ? "1.7.28" : "2.2.1" };
    const host = new MemoryHost({ files: tree(name) });
    const bundle = await takeSnapshot(host, { ...specOf("00000001"), distribution: declared }, "node-1");
    const replayed = bundleHost(bundle);
    const daemon = replayingDaemon(containerdOn(replayed, declared), bundle);
    const { result, notices } = await planOn(host, declared);
    expect(await planWith(replayed, daemon, declared)).toMatchObject({ result, notices });
  }
});

describe("k0s", () => {
  const drop = `${k0s}/contrast-runtime.toml`;

  test("up to 1.35 merges drop-ins of version 2, and the plan says what an upgrade needs", async () => {
    const { result, text, notices } = await plan("k0s-1.35", { name: "k0s", containerdVersion: "1.7.28" });
    expect(result).toBe(`create ${drop}`);
    expect(text).toContain("version = 2\n");
    expect(notices).toEqual([expect.stringMatching(/Before k0s is upgraded to 1\.36 .*runtimes: \[\]/)]);
  });

  test.each([
    ["k0s-1.36", "create"],
    ["k0s-1.36-with-merged-left-over", "create"],
    ["k0s-1.36-with-old-drop-in", "edit"],
  ])("from 1.36 imports them as they are: %s", async (name, action) => {
    const { result, text, notices } = await plan(name, { name: "k0s", containerdVersion: "2.2.1" });
    expect(result).toBe(`${action} ${drop}`);
    expect(text).toContain("version = 3\n");
    // k0s refuses to start with a drop-in that has this.
    expect(text).not.toContain("io.containerd.grpc.v1.cri");
    expect(notices).toEqual([]);
  });

  test("after the upgrade, with the old drop-in deleted as the notice says, the installer writes the new form", async () => {
    const file = { path: drop, pristine: null, attributes: { mode: 0o644, uid: 0, gid: 0 }, backups: [] };
    const journal = { schemaVersion: 1, group: specOf().group, runtimes: [], createdDirectories: [] };
    const { result, text } = await plan(
      "k0s-1.36",
      { name: "k0s", containerdVersion: "2.2.1" },
      { [journalPath]: JSON.stringify({ ...journal, file: { ...file, written: "0".repeat(64) } }) },
    );
    expect(result).toBe(`create ${drop}`);
    expect(text).toContain("version = 3\n");
  });

  test("another drop-in may be named, its own file may not", async () => {
    const version = { name: "k0s", containerdVersion: "2.2.1" } as const;
    const named = await plan("k0s-1.36", { ...version, configPath: `${k0s}/contrast.toml` });
    expect(named.result).toBe(`create ${k0s}/contrast.toml`);
    const own = await plan("k0s-1.36", { ...version, configPath: "/etc/k0s/containerd.toml" });
    expect(own.result).toBe("configuration-path-unread");
    expect(own.text).toMatch(
      /writes it anew at each start.* uses \/etc\/k0s\/containerd\.d\/contrast-runtime\.toml\.$/,
    );
  });
});

describe("Canonical's k8s snap", () => {
  const unit = "snap.k8s.containerd.service";
  const elsewhere = { "/var/snap/k8s/common/args/containerd": "--config=/etc/k8s/c.toml\n--address=/run/k8s/c.sock\n" };

  test("its arguments are read from its own file", async () => {
    const files = { ...elsewhere, "/etc/k8s/c.toml": "version = 2\n" };
    const declared = { name: "containerd", unit, containerdVersion: "2.1.9" } as const;
    expect((await plan("k8s-snap", declared, files)).result).toBe("edit /etc/k8s/c.toml");
    const located = await locate(new MemoryHost({ files: { ...tree("k8s-snap"), ...files } }), declared);
    expect(located.socket).toBe("/run/k8s/c.sock");
  });

  test("its containerd is asked where the snap has it", async () => {
    const host = new MemoryHost({
      files: tree("k8s-snap"),
      programs: { containerd: () => ({ stdout: "containerd github.com/containerd/containerd/v2 v2.1.9 x\n" }) },
    });
    const located = await locate(host, { name: "containerd", unit });
    expect(located).toMatchObject({ binary: "/snap/k8s/current/bin/containerd", version: "2.1.9" });
  });

  test("without a containerd that answers, the refusal names where it looked, and not the unit that is set", async () => {
    const { result, text } = await plan("k8s-snap", { name: "containerd", unit });
    expect(result).toBe("containerd-missing");
    expect(text).toMatch(/\/snap\/k8s\/current\/bin\/containerd.*args\/containerd says that snap\.k8s\.containerd/);
    expect(text).not.toContain("Set distribution.unit");
  });

  test("containerd 1.7 with a drop-in that replaces the CRI's section: what to move where", async () => {
    const { result, text } = await plan("k8s-snap", { name: "containerd", unit, containerdVersion: "1.7.28" });
    expect(result).toBe("validation-failed");
    expect(text).toContain("99-nvidia.toml");
    expect(text).toContain("move its keys into /etc/containerd/config.toml and out of that file, or upgrade");
  });
});

test.each(["1.7.28", "2.2.1"])("a file that imports itself, which containerd %s serves with", async (version) => {
  const { result } = await plan("self-import", { name: "containerd", containerdVersion: version });
  expect(result).toBe("edit /etc/containerd/config.toml");
});

const folder = join(import.meta.dirname, "../../../fixtures/toml");

describe("files that no containerd loads", () => {
  test.each(["bad-escape", "nbsp-indent", "python-bool", "semicolon", "smart-quote", "unicode-key"])("%s", (name) => {
    const text = readFileSync(join(folder, `${name}.toml`), "utf8");
    expect(() => parseDocument(text, "c.toml")).toThrow(/^c\.toml, line \d+, .* not valid TOML/);
  });
});

test("where only containerd knows that it does not load a file, a plan asks it", async () => {
  const distribution = { name: "containerd" } as const;
  const spec = { ...specOf("00000001"), distribution };
  const host = nodeOf("containerd", {
    files: { "/etc/containerd/config.toml": readFileSync(join(folder, "aot.toml"), "utf8") },
  });
  host.programs.set("containerd", ([flag]) =>
    flag === "--version"
      ? { stdout: "containerd github.com/containerd/containerd/v2 v2.2.9 abc\n" }
      : { code: 1, stderr: "containerd: cannot decode stream_processors\n" },
  );
  await expect(planFor(host, containerdOn(host, distribution), spec, true)).rejects.toThrow(
    /does not load \/etc\/containerd\/config\.toml as it is now: .*cannot decode stream_processors/,
  );
});

describe("files that containerd 1.7 loads, and later ones do not", () => {
  const taken = ["dotted-then-header", "esc-comment", "ff-comment", "header-and-key-one-line", "leading-zero"];
  test.each([...taken, "gbk-comment", "latin1-comment"])("%s: the refusal is true of both", (name) => {
    const bytes = readFileSync(join(folder, `${name}.toml`));
    expect(() => parseDocument(decode(bytes, "c.toml"), "c.toml")).toThrow(
      /^c\.toml.* containerd 2\.x does not load such a file.*1\.7/,
    );
  });
});
