import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { journalPath } from "../../../../node-installer/host/journal.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import { planFor } from "../../../../node-installer/install/dry-run.ts";
import type { InstallSpec } from "../../../../runtime/spec.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { type NodeShape, nodeShapes, plainShape } from "../../../fakes/node-shapes.ts";
import { messageOf } from "./outcomes.ts";

const shapeOf = (name: string): NodeShape => {
  const shape = nodeShapes.find((one) => one.name === name);
  if (shape === undefined) throw new Error(`no such node: ${name}`);
  return shape;
};
const upgraded = shapeOf("k3s, drop-in");

let node: MemoryNode;
let spec: InstallSpec;
let isUpgraded: boolean;
/** k3s is upgraded, and from then on also imports drop-ins, which would be the better place for our tables. */
const arrange = async (before: NodeShape, after = upgraded) => {
  isUpgraded = false;
  node = new MemoryNode({ ...before, render: (host) => (isUpgraded ? after : before).render?.(host) });
  spec = node.spec([node.runtime("00000001")]);
  await converge(node.environment(spec));
  isUpgraded = true;
  node.binary = after.version;
  node.start();
};
afterEach(() => node.close());

const template = upgraded.edited.replace(/\.d\/[^/]*$/, ".tmpl");
/** The same k3s with version 3, before it imported drop-ins. */
const withoutImports: NodeShape = {
  ...upgraded,
  render(host) {
    upgraded.render?.(host);
    host.put(upgraded.configuration, host.text(upgraded.configuration)?.replace(/^imports = .*\n/m, "") ?? "");
  },
};

test("a template that holds our tables stays the place also without a journal, and can be uninstalled", async () => {
  await arrange(withoutImports);
  expect(node.host.text(template)).toContain("00000001");
  node.host.nodes.delete(journalPath);
  const { starts } = node;
  await converge(node.environment(spec));
  expect(node.starts).toBe(starts);
  await converge(node.environment({ ...spec, runtimes: [] }), { refuseBlocked: true });
  expect(node.served).toEqual([]);
  expect([node.host.text(template), node.host.text(upgraded.edited)]).toEqual([undefined, undefined]);
});

test("a template that we made goes when our tables move to a drop-in", async () => {
  await arrange(shapeOf("k3s, template"));
  const old = shapeOf("k3s, template").edited;
  expect(node.host.text(old)).toContain("00000001");
  await converge(node.environment(spec));
  expect(node.host.text(upgraded.edited)).toContain("00000001");
  expect(node.host.text(old)).toBeUndefined();
  expect(node.served).toHaveLength(1);
});

test("a drop-in that we made goes when the rendered file imports it no more", async () => {
  await arrange(upgraded, withoutImports);
  await converge(node.environment(spec));
  expect(node.host.text(template)).toContain("00000001");
  expect(node.host.text(upgraded.edited)).toBeUndefined();
  expect(node.served).toHaveLength(1);
});

test.each([
  ["goes", undefined],
  ["stays with what somebody wrote into it", '[plugins."io.containerd.cri.v1.images"]\n  snapshotter = "native"\n'],
])("a file that we made %s when containerd is started with another one", async (_, added = "") => {
  const shape = plainShape("plain", undefined);
  node = new MemoryNode(shape);
  spec = node.spec([node.runtime("00000001")]);
  const before = node.host.tree();
  await converge(node.environment(spec));
  node.host.put(configPath, `${node.host.text(configPath)}${added}`);

  const unit = "/etc/systemd/system/containerd.service";
  const moved = {
    [unit]: node.host.text(unit)?.replace("bin/containerd", "bin/containerd --config /data/c.toml") ?? "",
  };
  node.host.put(unit, moved[unit] ?? "");
  node.host.put("/data/c.toml", adminsFile);
  node.shape.configuration = "/data/c.toml";
  node.start();
  await converge(node.environment(spec));
  expect(node.host.text("/data/c.toml")).toContain("00000001");
  expect(node.host.text(configPath)).toBe(added || undefined);
  expect(node.served).toHaveLength(1);

  await converge(node.environment({ ...spec, runtimes: [] }));
  const after = Object.entries(node.host.tree()).filter(([path]) => !path.startsWith("/var/log/"));
  const left = after.filter(([path, text]) => before[path] !== text).map(([path]) => path);
  expect(left.sort()).toEqual([unit, "/data/c.toml", ...(added ? [configPath] : [])].sort());
});

const withRunc = adminsFile.replace("version = 3", "version = 2").replace("cri.v1.runtime", "grpc.v1.cri");
test("a link that leads to another file by now: that is installed to, and the former one is as it was", async () => {
  node = new MemoryNode(plainShape("plain", adminsFile));
  const [old, now] = ["/data/1.toml", "/data/2.toml"];
  for (const path of [old, now]) node.host.put(path, adminsFile);
  node.host.link(configPath, old);
  spec = node.spec([node.runtime("00000001")]);
  await converge(node.environment(spec));
  node.host.time += 60_000;
  node.host.link(configPath, now);
  node.start();
  expect(node.served).toEqual([]);
  node.host.time += 60_000;
  await converge(node.environment(spec));
  expect(node.served).toHaveLength(1);
  expect([node.host.text(old), node.host.text(now)?.includes("00000001")]).toEqual([adminsFile, true]);
  await converge(node.environment(node.spec([])));
  expect([node.host.text(now), node.host.nodes.get(configPath)?.kind]).toEqual([adminsFile, "link"]);
});

const runcOnly = `version = 2
# containerd 1.7 drops its built-in runc where a file names any runtime
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
sandbox_mode = "podsandbox"
`;
describe.each([
  ["containerd 1.7, version 2", "plain containerd 1.7, version 2", "version = 2\n", ""],
  ["containerd 2.1, version 2", "plain containerd 2.1, version 2", "version = 2\n", ""],
  ["containerd 2.1, version 3", "plain containerd, version 3", "version = 3\n", ""],
  ["containerd 2.4, version 4", "plain containerd 2.4, version 4", "version = 4\n", ""],
  ["a file of which only we wrote something", "plain containerd without a file", withRunc, ""],
  ["an import by a pattern", "plain containerd, version 3", "version = 3\n", "/etc/containerd/*.toml"],
  ["a lost journal", "plain containerd, version 3", "version = 3\n", ""],
  ["our file under a link", "plain containerd, version 3", "version = 3\n", "/etc/containerd/linked.toml"],
])(
  "containerd is started with a new file that imports the one that has our tables: %s",
  (name, shape, head, pattern) => {
    const root = "/etc/own/containerd.toml";
    const unit = "/etc/systemd/system/containerd.service";
    let before: string | undefined;
    beforeEach(async () => {
      node = new MemoryNode({ ...shapeOf(shape) });
      before = node.host.text(configPath);
      spec = node.spec([node.runtime("00000001")]);
      await converge(node.environment(spec));
      node.host.time += 60_000;
      if (pattern.includes("linked")) node.host.link(pattern, configPath);
      node.host.put(root, head.replace("\n", `\nimports = ["${pattern || configPath}"]\n`));
      node.host.put(unit, (node.host.text(unit) ?? "").replace("bin/containerd", `bin/containerd --config ${root}`));
      node.shape.configuration = root;
      if (name === "a lost journal") node.host.nodes.delete(journalPath);
      node.start();
      node.host.time += 60_000;
    });

    test("nothing is to be done", async () => {
      const [file, { starts }] = [node.host.text(configPath), node];
      expect(node.served).toHaveLength(1);
      if (name !== "a lost journal") {
        const { plan } = await planFor(node.host, node.daemon(spec), spec);
        expect([plan.edit, plan.restart, plan.left]).toEqual([false, false, []]);
      }
      await converge(node.environment(spec));
      expect([node.host.text(configPath), node.starts]).toEqual([file, starts]);
      expect(node.host.text(root)).not.toContain("contrast-");
    });

    test("further runtimes come to the same file, and all of them go from it", async () => {
      const { starts } = node;
      const text = node.host.text(root);
      const more = node.spec([...spec.runtimes, node.runtime("00000002")]);
      await converge(node.environment(more));
      expect(node.served?.toSorted()).toEqual(more.runtimes.map(({ handler }) => handler));
      expect(node.host.text(configPath)).toContain("00000002");
      await converge(node.environment(node.spec([])), { refuseBlocked: true });
      expect(node.served).toEqual([]);
      expect([node.host.text(root), node.starts - starts]).toEqual([text, 2]);
      // A file that somebody imports by name must be there, or containerd does not start; and runc stays what it was.
      expect(node.host.text(configPath)).toBe(before ?? runcOnly);
      const left = Object.keys(node.host.tree()).filter((path) => /contrast|edgeless|\.bak$/.test(path));
      expect(
        left.filter((path) => !path.startsWith("/var/log/") && path !== "/var/lib/contrast-runtime/restarts"),
      ).toEqual([]);
    });

    test("what somebody changes in either file and does not load is seen", async () => {
      await converge(node.environment(spec));
      const more = node.spec([...spec.runtimes, node.runtime("00000002")]);
      for (const path of [root, configPath]) {
        node.host.time += 60_000;
        node.host.put(path, `${node.host.text(path)}[debug]\n  level = "debug"\n`);
        const { starts } = node;
        expect(await messageOf(converge(node.environment(more)))).toContain(`${path} changed after it`);
        expect(node.starts).toBe(starts);
        node.start();
      }
      await converge(node.environment(more));
      expect(node.served).toHaveLength(2);
    });
  },
);

test("a file that reaches containerd only through another import is named, with what to do", async () => {
  node = new MemoryNode(plainShape("plain", adminsFile));
  spec = node.spec([node.runtime("00000001")]);
  await converge(node.environment(spec));
  const [root, between] = ["/etc/containerd/new.toml", "/etc/containerd/between.toml"];
  const importing = (path: string) => `version = 3\nimports = ["${path}"]\n`;
  node.host.put(root, importing(between));
  node.host.put(between, importing(configPath));
  const unit = "/etc/systemd/system/containerd.service";
  node.host.put(unit, (node.host.text(unit) ?? "").replace("bin/containerd", `bin/containerd --config ${root}`));
  node.shape.configuration = root;
  node.start();
  expect(await messageOf(converge(node.environment(spec)))).toMatch(
    /reads only because \/etc\/containerd\/between\.toml imports that\. Name \/etc\/containerd\/config\.toml itself/,
  );
  node.host.put(root, `version = 3\nimports = ["${between}", "${configPath}"]\n`);
  node.start();
  node.host.time += 60_000;
  const { starts } = node;
  await converge(node.environment(spec));
  expect(node.starts).toBe(starts);
});

describe.each([
  ["k3s, between drop-ins", "k3s, drop-in", upgraded.edited.replace(/[^/]*$/, "50-ours.toml")],
  ["k0s 1.36", "k0s 1.36", "/etc/k0s/containerd.d/50-ours.toml"],
  ["k0s 1.35", "k0s 1.35", "/etc/k0s/containerd.d/50-ours.toml"],
  ["k3s, from a template to a drop-in", "", upgraded.edited],
])("configPath that changes while something is installed: %s", (_, shape, other) => {
  let file: string;
  let changed: InstallSpec;
  const begin = async () => {
    if (shape === "") {
      await arrange(withoutImports);
      file = template;
    } else {
      node = new MemoryNode(shapeOf(shape));
      spec = node.spec([node.runtime("00000001")]);
      await converge(node.environment(spec));
      file = shapeOf(shape).edited;
    }
    changed = { ...spec, distribution: { ...spec.distribution, configPath: other } };
    node.host.time += 60_000;
  };
  const places = () =>
    [file, other].map((path) =>
      node.host
        .text(path)
        ?.match(/contrast-cc-[\w-]*/)?.[0]
        .slice(-8),
    );

  test("the tables stay where they are, without a restart, and plan says so", async () => {
    await begin();
    const { starts } = node;
    expect(await converge(node.environment(changed))).toMatchObject({ changed: false });
    expect(node.starts).toBe(starts);
    const { notices } = await planFor(node.host, node.daemon(changed), changed);
    expect(notices.join()).toContain(`configPath is ${other}, but what is installed stands in ${file}`);
  });

  test("another runtime is installed there, with one restart", async () => {
    await begin();
    const { starts } = node;
    await converge(node.environment({ ...changed, runtimes: [node.runtime("00000002")] }));
    expect(places()).toEqual(["00000002", undefined]);
    expect(node.served).toEqual(["contrast-cc-metal-qemu-snp-00000002"]);
    expect(node.starts - starts).toBe(1);
  });

  test("everything can be uninstalled, also without a journal; what is installed then goes to the new place", async () => {
    await begin();
    const nothing = { ...changed, runtimes: [] };
    await converge(node.environment(nothing), { refuseBlocked: true });
    expect([...places(), ...(node.served ?? ["?"])]).toEqual([undefined, undefined]);
    // The model of k0s 1.35 merges one drop-in.
    if (shape === "k0s 1.35") return;
    node.host.time += 60_000;
    await converge(node.environment(changed));
    expect(places()).toEqual([undefined, "00000001"]);
    node.host.nodes.delete(journalPath);
    await converge(node.environment(nothing), { refuseBlocked: true });
    expect([...places(), ...(node.served ?? ["?"])]).toEqual([undefined, undefined]);
  });

  test("one that nothing reads is refused, and what the refusal advises leads on to uninstalling", async () => {
    await begin();
    const wrong = { ...spec, distribution: { ...spec.distribution, configPath: "/etc/nothing.toml" }, runtimes: [] };
    const message = await messageOf(converge(node.environment(wrong), { refuseBlocked: true }));
    expect(message).toContain(`Leave configPath out: on this node the installer then uses ${file}.`);
    await converge(node.environment({ ...spec, runtimes: [] }), { refuseBlocked: true });
    expect([...places(), ...(node.served ?? ["?"])]).toEqual([undefined, undefined]);
  });
});
