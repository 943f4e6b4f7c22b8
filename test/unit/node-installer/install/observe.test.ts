import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { journalPath, readJournal } from "../../../../node-installer/host/journal.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import type { InstallSpec } from "../../../../runtime/spec.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";

// containerd comes to read another file than the one that our tables are in: its file's link is flipped.

let node: MemoryNode;
const [first, second] = ["/etc/containerd/first.toml", "/etc/containerd/second.toml"];
const secondText = `${adminsFile}[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.another]\n  runtime_type = "io.containerd.runc.v2"\n`;

function linked(): MemoryNode {
  const made = new MemoryNode();
  made.host.put(first, adminsFile);
  made.host.put(second, secondText);
  made.host.nodes.delete(configPath);
  made.host.link(configPath, "first.toml");
  made.start();
  return made;
}

const flip = ({ host }: MemoryNode) => {
  host.nodes.delete(configPath);
  host.link(configPath, "second.toml");
};

const wanted = () => node.spec([node.runtime("00000001")]);
const backups = () => [...node.host.nodes.keys()].filter((path) => path.endsWith(".bak"));

beforeEach(() => {
  node = linked();
});
afterEach(() => node.close());

test("the runtimes move to it, with one restart, while pods use them; nothing of ours stays in the old one", async () => {
  const spec = wanted();
  await converge(node.environment(spec));
  const handler = spec.runtimes[0]?.handler ?? "";
  node.sandboxes.push({ handler, name: "default/pod" });
  flip(node);
  node.start();
  expect(node.served).toEqual([]);
  const { starts } = node;
  await converge(node.environment(spec));
  expect([node.served, node.starts - starts]).toEqual([[handler], 1]);
  expect(node.host.text(first)).toBe(adminsFile);
  expect(node.host.text(second)?.startsWith(secondText)).toBe(true);
  expect((await readJournal(node.host, { group: "workers" })).left).toEqual([]);
  expect(await converge(node.environment(spec))).toMatchObject({ changed: false });

  node.sandboxes = [];
  await converge(node.environment(node.spec([])));
  expect([node.host.text(first), node.host.text(second), backups()]).toEqual([adminsFile, secondText, []]);
  expect(node.host.text(journalPath)).toBeUndefined();
});

test("a copy that has our tables already is adopted without a restart", async () => {
  const spec = wanted();
  await converge(node.environment(spec));
  node.host.put(second, node.host.text(first) ?? "");
  flip(node);
  const { starts } = node;
  await converge(node.environment(spec));
  expect([node.served?.length, node.starts, node.host.text(first)]).toEqual([1, starts, adminsFile]);
  node.start();
  await converge(node.environment(node.spec([])));
  expect([node.host.text(second), backups()]).toEqual([adminsFile, []]);
});

test("uninstalling cleans the old file and leaves the other one alone, whatever the old one holds by now", async () => {
  await converge(node.environment(wanted()));
  node.host.put(first, `{{ no TOML }}\n${node.host.text(first)}`);
  flip(node);
  node.start();
  await converge(node.environment(node.spec([])));
  expect([node.host.text(first), node.host.text(second)]).toEqual([`{{ no TOML }}\n${adminsFile}`, secondText]);
  expect(node.host.text(journalPath)).toBeUndefined();
});

test("a change that is open in the old file is closed there first", async () => {
  const spec = wanted();
  node.host.onPoint = (point, when) => {
    if (point === "run systemctl restart containerd.service" && when === "before") node.host.kill();
  };
  await expect(converge(node.environment(spec))).rejects.toThrow("the process was killed");
  node.host.revive();
  flip(node);
  await converge(node.environment(spec));
  expect([node.served?.length, node.host.text(first)]).toEqual([1, adminsFile]);
});

describe("killed at any point of the move, and run again", () => {
  const move = async (spec: InstallSpec, onPoint: (point: string, when: "before" | "after") => void) => {
    node.close();
    node = linked();
    node.runtime("00000001");
    await converge(node.environment(spec));
    flip(node);
    node.start();
    node.host.points.length = 0;
    node.host.onPoint = onPoint;
    await converge(node.environment(spec)).catch((error: Error) => {
      if (node.host.alive) throw error;
    });
  };
  /** Calls that make a difference to a later run. */
  const matters = (point: string) =>
    /^(rename|remove|write) .*\/(containerd|contrast-runtime)\/|^run systemctl restart/.test(point);

  test("the CRI always answers, and the same files are the end of it", { timeout: 300_000 }, async () => {
    const spec = wanted();
    await move(spec, () => undefined);
    const total = node.host.points.filter(matters).length;
    const end = [node.host.text(first), node.host.text(second)];
    expect(total).toBeGreaterThan(10);
    for (let at = 0; at < total; at += 1) {
      let seen = 0;
      await move(spec, (point, when) => {
        if (when === "before" && matters(point) && seen++ === at) node.host.kill();
      });
      node.start();
      expect([at, node.served]).not.toEqual([at, undefined]);
      node.host.revive();
      await converge(node.environment(spec));
      expect([at, node.host.text(first), node.host.text(second), node.served?.length]).toEqual([at, ...end, 1]);
    }
  });
});
