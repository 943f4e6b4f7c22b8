import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { lockPath } from "../../../../node-installer/host/files.ts";
import { DigestMismatch } from "../../../../node-installer/host/host.ts";
import { journalPath } from "../../../../node-installer/host/journal.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import { RolledBack } from "../../../../node-installer/install/rolled-back.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { backupsOn, guardsFilesOn, refusalOf } from "./outcomes.ts";

let node: MemoryNode;
beforeEach(() => {
  node = new MemoryNode();
});
afterEach(() => node.close());

describe("install", () => {
  test("several handlers in one transaction: one edit, one restart, one backup with the old bytes", async () => {
    const spec = node.spec([node.runtime("00000001"), node.runtime("00000002")]);
    const outcome = await converge(node.environment(spec));
    expect(outcome).toMatchObject({ changed: true, blocked: [] });
    expect(node.served).toEqual(spec.runtimes.map(({ handler }) => handler));
    expect(node.starts).toBe(2);
    expect(backupsOn(node).map((path) => node.host.text(path))).toEqual([adminsFile]);
    expect(node.host.text(configPath)?.startsWith(adminsFile)).toBe(true);
    expect(guardsFilesOn(node)).toEqual([]);
  });

  test("a second run writes nothing, restarts nothing and takes no lock", async () => {
    const spec = node.spec([node.runtime("00000001")]);
    await converge(node.environment(spec));
    node.host.points.length = 0;
    const before = node.host.tree();
    expect(await converge(node.environment(spec))).toMatchObject({ changed: false });
    expect(node.host.tree()).toEqual(before);
    expect(
      node.host.points.filter((point) => !/^(probe|run containerd --version|run systemctl show)/.test(point)),
    ).toEqual([]);
  });

  test("nothing is changed without the node's lock, which is held from the first change to the last", async () => {
    const spec = node.spec([node.runtime("00000001")]);
    const other = await node.host.lock(lockPath);
    const before = node.host.tree();
    await expect(converge(node.environment(spec))).rejects.toThrow(`EWOULDBLOCK: ${lockPath}`);
    expect(node.host.tree()).toEqual(before);
    await other.release();
    const unlocked: string[] = [];
    node.host.onPoint = (point) => {
      if (/^(write|rename|remove|copy) /.test(point) && !node.host.locked.has(lockPath)) unlocked.push(point);
    };
    await converge(node.environment(spec));
    expect(unlocked).toEqual([]);
  });

  test("a full disk is refused before anything is written, and a backup that nothing refers to is removed", async () => {
    const spec = node.spec([node.runtime("00000001")]);
    const { free } = node.host;
    node.host.free = { bytes: 512 << 10, inodes: 1e6 };
    const files = () => Object.keys(node.host.tree()).filter((path) => !path.startsWith("/var/log/"));
    const before = files();
    expect(await refusalOf(converge(node.environment(spec)))).toBe("no-space");
    expect(files()).toEqual(before);
    node.host.free = free;
    node.host.onPoint = (point) => {
      if (point.includes(".pristine.")) throw Object.assign(new Error("ENOSPC: injected"), { code: "ENOSPC" });
    };
    await expect(converge(node.environment(spec))).rejects.toThrow("ENOSPC");
    expect(backupsOn(node)).toEqual([]);
  });

  test("a daemon that does not serve what its file says is restarted, and nothing is written over the file", async () => {
    const spec = node.spec([node.runtime("00000001")]);
    await converge(node.environment(spec));
    const file = node.host.text(configPath) ?? "";
    node.host.put(configPath, adminsFile);
    node.start();
    node.host.put(configPath, file);
    expect(node.served).toEqual([]);
    await converge(node.environment(spec));
    expect(node.served).toHaveLength(1);
    expect(backupsOn(node)).toHaveLength(1);
  });

  test("a payload that does not match its manifest is refused before containerd's file is touched", async () => {
    const runtime = node.runtime("00000001");
    const [shim] = runtime.files;
    if (shim) shim.sha256 = "0".repeat(64);
    await expect(converge(node.environment(node.spec([runtime])))).rejects.toThrow(DigestMismatch);
    expect(node.host.text(configPath)).toBe(adminsFile);
    expect(node.starts).toBe(1);
  });

  test("a change that the node's own containerd cannot try is refused, whatever version the spec states", async () => {
    node.host.programs.delete("containerd");
    const spec = node.spec([node.runtime("00000001")]);
    const stated = { ...spec, distribution: { name: "containerd" as const, containerdVersion: "2.1.4" } };
    expect(await refusalOf(converge(node.environment(stated)))).toBe("containerd-missing");
    expect(node.host.text(configPath)).toBe(adminsFile);
    expect(Object.keys(node.host.tree()).filter((path) => path.startsWith("/opt/"))).toEqual([]);
  });

  test("the remains of an interrupted copy do not take the space of the next one", async () => {
    const spec = node.spec([node.runtime("00000001")]);
    const staged = `/opt/edgeless/.staging-${spec.runtimes[0]?.handler}/share/kata-kernel`;
    node.host.put(staged, "half a ker");
    const { free } = node.host;
    node.host.freeSpace = async () => (node.host.text(staged) === undefined ? free : { ...free, bytes: 1 << 20 });
    await converge(node.environment(spec));
    expect(node.served).toEqual(spec.runtimes.map(({ handler }) => handler));
  });

  test("an image without the payload is refused, with what to do", async () => {
    const environment = { ...node.environment(node.spec([node.runtime("00000001")])), payloads: "/no/payloads" };
    const installing = converge(environment);
    await expect(installing).rejects.toThrow("The installer's image does not contain the payload payload-00000001");
    expect(node.host.text(configPath)).toBe(adminsFile);
  });

  test("too little space or too few inodes are refused before the first byte", async () => {
    const spec = node.spec([node.runtime("00000001")]);
    node.host.free = { bytes: 1000, inodes: 1e6 };
    expect(await refusalOf(converge(node.environment(spec)))).toBe("no-space");
    node.host.free = { bytes: 1e12, inodes: 10 };
    expect(await refusalOf(converge(node.environment(spec)))).toBe("no-inodes");
    expect(node.host.points.filter((point) => point.startsWith("copy"))).toEqual([]);
  });

  test("a node whose CRI was broken before is left alone", async () => {
    node.host.put(configPath, `${adminsFile}[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.broken]\n`);
    node.breaks.add("broken");
    node.start();
    const before = node.host.text(configPath);
    expect(await refusalOf(converge(node.environment(node.spec([node.runtime("00000001")]))))).toBe(
      "cri-broken-before",
    );
    expect(node.host.text(configPath)).toBe(before);
    expect(node.starts).toBe(2);
  });

  test("another group's node is refused, and nothing changes", async () => {
    await converge(node.environment(node.spec([node.runtime("00000001")], "first")));
    const before = node.host.tree();
    const environment = node.environment(node.spec([node.runtime("00000002")], "second"));
    expect(await refusalOf(converge(environment))).toBe("other-group");
    expect(node.host.tree()).toEqual(before);
  });

  test("a node that the group has under its former name is taken over: its journal changes, and nothing else", async () => {
    const spec = node.spec([node.runtime("00000001")], "first");
    await converge(node.environment(spec));
    const { starts } = node;
    const before = node.host.tree();
    const renamed = { ...spec, group: "second", formerly: "first" };
    expect(await converge(node.environment(renamed))).toMatchObject({ changed: false, handlers: node.served });
    const changed = Object.entries(node.host.tree()).filter(([path, now]) => before[path] !== now);
    expect(changed.map(([path]) => path).filter((path) => !path.startsWith("/var/log/"))).toEqual([journalPath]);
    expect(node.starts).toBe(starts);
    expect(await refusalOf(converge(node.environment(spec)))).toBe("other-group");
    // And back, by which time the name may have been left out again.
    await converge(node.environment({ ...spec, formerly: "second" }));
    expect(await converge(node.environment(spec))).toMatchObject({ changed: false });
    expect(node.starts).toBe(starts);
  });

  test("a change that the former name's installer left open is closed when the node is taken over", async () => {
    const spec = node.spec([node.runtime("00000001")], "first");
    node.host.onPoint = (point, when) => {
      if (when === "after" && point === `rename ${configPath}`) throw new Error("killed");
    };
    await expect(converge(node.environment(spec))).rejects.toThrow("killed");
    node.host.onPoint = () => undefined;
    await converge(node.environment({ ...spec, group: "second", formerly: "first" }));
    expect(JSON.parse(node.host.text(journalPath) ?? "")).toMatchObject({ group: "second" });
    expect(node.served).toEqual(spec.runtimes.map(({ handler }) => handler));
  });

  test("if the file is a link, its target is edited and keeps its mode and owner", async () => {
    node.host.put("/data/containerd.toml", adminsFile, { mode: 0o640, uid: 12, gid: 34 });
    node.host.link(configPath, "/data/containerd.toml");
    await converge(node.environment(node.spec([node.runtime("00000001")])));
    expect(await node.host.stat("/data/containerd.toml")).toMatchObject({ mode: 0o640, uid: 12, gid: 34 });
    expect(node.host.nodes.get(configPath)?.kind).toBe("link");
  });
});

test("a lost journal is recreated without another restart", async () => {
  const runtime = node.runtime("00000001");
  const spec = node.spec([runtime]);
  await converge(node.environment(spec));
  const { starts } = node;
  node.host.nodes.delete("/var/lib/contrast-runtime/journal.json");
  await converge(node.environment(spec));
  node.host.digest = () => Promise.reject(new Error("nothing has to be read in full"));
  expect((await converge(node.environment(spec))).changed).toBe(false);
  expect(node.starts).toBe(starts);

  node.sandboxes = [{ handler: runtime.handler, name: "shop/web" }];
  const used = [{ handler: runtime.handler, pods: ["shop/web"] }];
  expect((await converge(node.environment(node.spec([])))).blocked).toEqual(used);
  node.sandboxes = [];
  await converge(node.environment(node.spec([])));
  expect(node.host.text(configPath)).toBe(adminsFile);
  expect(Object.keys(node.host.tree()).filter((path) => path.startsWith("/opt/"))).toEqual([]);
});

test("the units of a guard whose directory somebody deleted are removed", async () => {
  const unit = "/etc/systemd/system/contrast-runtime-guard.service";
  node.host.put(unit, "");
  await converge(node.environment(node.spec([])));
  expect(Object.keys(node.host.tree())).not.toContain(unit);
});

test("a handler that is not served even after a restart is reported once, without restarting again and again", async () => {
  const spec = node.spec([node.runtime("00000001")]);
  await converge(node.environment(spec));
  const installed = node.host.text(configPath);
  for (const { handler } of spec.runtimes) node.displaced.add(handler);
  await expect(converge(node.environment(spec))).rejects.toThrow(RolledBack);
  const { starts } = node;
  expect(await refusalOf(converge(node.environment(spec)))).toBe("failed-before");
  expect(node.starts).toBe(starts);
  expect(node.host.text(configPath)).toBe(installed);
});

describe("what guests are told about registries", () => {
  const imagePuller = "etc/host-config/contrast-imagepuller.toml";
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "guest-registry-"));
  });
  afterEach(() => rmSync(directory, { recursive: true }));
  const told = () => node.spec([{ ...node.runtime("00000001"), imagePuller }, node.runtime("00000002")]);
  const file = () => join(directory, "contrast-imagepuller.toml");
  const environment = (spec = told()) => ({ ...node.environment(spec), guestRegistry: file() });
  const path = () => `/opt/edgeless/${told().runtimes[0]?.handler}/${imagePuller}`;

  test("is on the node, for root alone, follows the Secret without a restart, and goes with the runtime", async () => {
    writeFileSync(file(), "first");
    await converge(environment());
    expect(node.host.text(path())).toBe("first");
    expect(await node.host.stat(path())).toMatchObject({ mode: 0o600, uid: 0, gid: 0 });
    const { starts } = node;
    expect(await converge(environment())).toMatchObject({ changed: false });

    writeFileSync(file(), "pass-word");
    expect(await converge(environment())).toMatchObject({ changed: true });
    expect(node.host.text(path())).toBe("pass-word");
    expect(node.starts).toBe(starts);
    expect(node.log.join()).not.toContain("pass-word");

    await converge(environment(node.spec([])));
    expect(Object.keys(node.host.tree()).filter((name) => name.includes("imagepuller"))).toEqual([]);
  });

  test("a node that somebody else could read it on is set right", async () => {
    writeFileSync(file(), "first");
    await converge(environment());
    node.host.put(path(), "changed");
    await converge(environment());
    expect(node.host.text(path())).toBe("first");
    expect(await node.host.stat(path())).toMatchObject({ mode: 0o600 });
  });

  test("without the Secret nothing is changed, and the sentence says which it is", async () => {
    const before = node.host.tree();
    await expect(converge(environment())).rejects.toThrow(
      `there is no ${file()}, which the Secret of the stack's registry.guest brings.`,
    );
    await expect(converge(node.environment(told()))).rejects.toThrow("give it with --guest-registry");
    expect(Object.keys(node.host.tree()).filter((name) => !name.startsWith("/var/log/"))).toEqual(Object.keys(before));
  });
});
