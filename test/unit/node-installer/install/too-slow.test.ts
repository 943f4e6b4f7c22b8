import { afterEach, describe, expect, test } from "vitest";
import { takeSnapshot } from "../../../../node-installer/commands/snapshot.ts";
import { requireSystemd } from "../../../../node-installer/containerd/restart.ts";
import { bundleHost } from "../../../../node-installer/host/bundle.ts";
import { TooSlow } from "../../../../node-installer/host/host.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import { planFor } from "../../../../node-installer/install/dry-run.ts";
import { hostFacts } from "../../../../node-installer/install/host-findings.ts";
import { RolledBack } from "../../../../node-installer/install/rolled-back.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";

// A program of the host that is ended after its time limit has given no answer: nothing may be concluded from it.

const nodes: MemoryNode[] = [];
afterEach(() => {
  for (const node of nodes.splice(0)) node.close();
});

/** A node that has every program that an installer asks. */
function nodeWithPrograms(): MemoryNode {
  const node = new MemoryNode();
  for (const name of ["cat", "lsattr", "ls"]) node.host.programs.set(name, () => ({}));
  nodes.push(node);
  return node;
}

/** Ends the n-th call of a program, counted from 1, as its time limit does; returns what was called. */
function slowAt(node: MemoryNode, at: number): { name: string | undefined } {
  const found: { name: string | undefined } = { name: undefined };
  let runs = 0;
  node.host.onPoint = (point, when) => {
    if (when !== "before" || !point.startsWith("run ")) return;
    runs += 1;
    if (runs !== at) return;
    found.name = point.slice(4);
    throw new TooSlow(found.name, [], 60_000);
  };
  return found;
}

async function programsOf(): Promise<string[]> {
  const node = nodeWithPrograms();
  await converge(node.environment(node.spec([node.runtime("00000001")])));
  return node.host.points.filter((point) => point.startsWith("run ")).map((point) => point.slice(4));
}

test("each program that an installation asks before its edit ends it with the program's name, and nothing is edited", async () => {
  const programs = await programsOf();
  const edit = programs.findIndex((name) => name.startsWith("systemctl enable"));
  // Asked about twice: systemd, the file's mount and attributes, containerd's version and its files.
  expect(new Set(programs.slice(0, edit)).size).toBeGreaterThan(6);
  for (let at = 1; at <= edit; at += 1) {
    const node = nodeWithPrograms();
    const slow = slowAt(node, at);
    const error: unknown = await converge(node.environment(node.spec([node.runtime("00000001")]))).catch(
      (reason) => reason,
    );
    expect(error, slow.name).toBeInstanceOf(TooSlow);
    expect((error as Error).message).toBe(
      `${slow.name} has not answered within 60 s: this node has no free CPU, or its disk hangs. Look at its load and its kernel's log.`,
    );
    expect(node.host.text(configPath)).toBe(adminsFile);
    expect(node.starts).toBe(1);
  }
});

test("a rollback goes on when containerd is too slow to say what is on disk, and when systemctl does not wait for a start", async () => {
  const node = nodeWithPrograms();
  const runtime = node.runtime("00000001");
  node.breaks.add(runtime.handler);
  let isBack = false;
  node.host.onPoint = (point, when) => {
    if (node.starts < 2) return;
    if (when === "before" && point.includes("config dump")) throw new TooSlow("containerd", [], 30_000);
    if (when !== "after" || !point.startsWith("run systemctl restart mark") || isBack) return;
    isBack = true;
    throw new TooSlow("systemctl", ["restart"], 120_000);
  };
  await expect(converge(node.environment(node.spec([runtime])))).rejects.toThrow(RolledBack);
  expect(node.host.text(configPath)).toBe(adminsFile);
  expect(node.served).toEqual([]);
});

test("systemd that is too slow is not one that the pod may not reach", async () => {
  const node = nodeWithPrograms();
  const located = await node.daemon(node.spec([])).locate();
  slowAt(node, 1);
  await expect(requireSystemd(node.host, located)).rejects.toThrow(TooSlow);
});

describe("a node's bundle", () => {
  test("is not made of what a slow node did not say", async () => {
    for (let at = 1; at <= 2; at += 1) {
      const node = nodeWithPrograms();
      slowAt(node, at);
      const spec = node.spec([node.runtime("00000001")]);
      await expect(takeSnapshot(node.host, spec, "node", (host) => node.daemon(spec, host))).rejects.toThrow(TooSlow);
    }
  });

  test("of an earlier version tells a slow program from an absent one", async () => {
    const node = nodeWithPrograms();
    const spec = node.spec([node.runtime("00000001")]);
    const bundle = await takeSnapshot(node.host, spec, "node", (host) => node.daemon(spec, host));
    const version = Object.keys(bundle.calls).filter((call) => /^run \S*containerd --version$/.test(call));
    expect(version).toHaveLength(1);
    for (const call of version) bundle.calls[call] = { code: 124, stdout: "", stderr: "" };
    const host = bundleHost(bundle);
    await expect(planFor(host, node.daemon(spec, host), spec)).rejects.toThrow(
      /--version has not answered within 60 s/,
    );
  });
});

test("where directories are mounted is not guessed", async () => {
  const node = nodeWithPrograms();
  const located = await node.daemon(node.spec([])).locate();
  node.host.programs.set("cat", () => {
    throw new TooSlow("cat", ["/proc/self/mountinfo"], 60_000);
  });
  await expect(hostFacts(node.host, located)).rejects.toThrow(TooSlow);
});
