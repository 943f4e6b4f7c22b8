import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { journalPath, readJournal } from "../../../../node-installer/host/journal.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import { sha256 } from "../../../../runtime/canonical.ts";
import type { InstallSpec } from "../../../../runtime/spec.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { plainShape } from "../../../fakes/node-shapes.ts";
import { refusalOf } from "./outcomes.ts";

let node: MemoryNode;
beforeEach(() => {
  node = new MemoryNode();
});
afterEach(() => node.close());

test("a lost journal: existing files are adopted, not copied again, and the pristine copy is the file without our block", async () => {
  const spec = node.spec([node.runtime("00000001")]);
  await converge(node.environment(spec));
  for (const path of [...node.host.nodes.keys()]) if (path.startsWith("/var/lib/")) node.host.nodes.delete(path);
  node.host.points.length = 0;
  await converge(node.environment(node.spec([...spec.runtimes, node.runtime("00000002")])));
  expect(node.host.points.filter((point) => point.startsWith("copy") && point.includes("00000001"))).toEqual([]);
  const journal = await readJournal(node.host, { group: "workers" });
  expect(node.host.text(journalPath)).toBeDefined();
  await converge(node.environment(node.spec([])), { refuseBlocked: true });
  expect(node.host.text(configPath)).toBe(adminsFile);
  expect(journal.runtimes).toHaveLength(2);
});

test("the directory that the lock command wrote will do, with the files beside their manifest", async () => {
  const spec = node.spec([node.runtime("00000001")]);
  const payload = join(node.payloads, "payload-00000001");
  renameSync(payload, `${payload}.files`);
  mkdirSync(payload);
  expect(await refusalOf(converge(node.environment(spec)))).toBe("payload-missing");
  renameSync(`${payload}.files`, join(payload, "files"));
  await converge(node.environment(spec));
  expect(node.served).toEqual([spec.runtimes[0]?.handler]);
});

describe("several files at once", () => {
  const copies = () => node.host.points.filter((point) => point.startsWith("copy "));

  /** A runtime with so many further files of growing size. */
  function runtimeOf(count: number) {
    const runtime = node.runtime("00000001");
    const more = Array.from({ length: count }, (_, index) => {
      const [path, content] = [`share/${index}`, "x".repeat(100 + index)];
      writeFileSync(join(node.payloads, runtime.payload, path), content);
      return { role: "vmm-data" as const, path, mode: "0644" as const, size: content.length, sha256: sha256(content) };
    });
    return { ...runtime, files: [...runtime.files, ...more] };
  }

  test("are copied, never more than three, the largest first; all are there before the first is renamed", async () => {
    const runtime = runtimeOf(7);
    const copy = node.host.copyPayloadFile.bind(node.host);
    const sizes: number[] = [];
    let [running, most] = [0, 0];
    node.host.copyPayloadFile = async (source, target, expected) => {
      sizes.push(expected.size);
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setImmediate(resolve));
      await copy(source, target, expected);
      running -= 1;
    };
    node.host.onPoint = (point) => {
      if (point.startsWith("rename /opt/")) expect([running, copies().length]).toEqual([0, 9]);
    };
    await converge(node.environment(node.spec([runtime])));
    expect(most).toBe(3);
    expect(sizes).toEqual(sizes.toSorted((a, b) => b - a));
    expect(node.served).toEqual([runtime.handler]);
  });

  test("if one fails, none is begun any more, and those that were are awaited", async () => {
    const runtime = runtimeOf(7);
    const copy = node.host.copyPayloadFile.bind(node.host);
    let [begun, running] = [0, 0];
    node.host.copyPayloadFile = async (...args) => {
      begun += 1;
      if (begun === 2) throw Object.assign(new Error("ENOSPC: no space left"), { code: "ENOSPC" });
      running += 1;
      // Longer than any way of the failure to the end.
      for (let turn = 0; turn < 100; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      await copy(...args);
      running -= 1;
    };
    await expect(converge(node.environment(node.spec([runtime])))).rejects.toThrow("ENOSPC: no space left");
    expect([begun, running]).toEqual([3, 0]);
    expect(node.host.points.filter((point) => point.startsWith("rename /opt/"))).toEqual([]);
    node.host.copyPayloadFile = copy;
    await converge(node.environment(node.spec([runtime])));
    expect(node.served).toEqual([runtime.handler]);
  });
});

describe("what is refused before the payload is copied leaves no file on the disk", () => {
  const untouched = async (spec: InstallSpec) => {
    const files = () => Object.entries(node.host.tree()).filter(([path]) => !path.startsWith("/var/log/"));
    const before = files();
    const end: unknown = await converge(node.environment(spec)).catch((error: unknown) => error);
    expect(files()).toEqual(before);
    expect(node.host.points.filter((point) => point.startsWith("copy "))).toEqual([]);
    return end;
  };

  test("tables that the node's containerd does not load", async () => {
    node.refuses = (text) => (text.includes("pod_annotations") ? "unknown key pod_annotations" : undefined);
    expect(await untouched(node.spec([node.runtime("00000001")]))).toMatchObject({ code: "validation-failed" });
  });

  test("an import that hides the tables from containerd 1.7", async () => {
    node.close();
    const dropIn = "/etc/containerd/conf.d/nvidia.toml";
    const table =
      '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.a]\nruntime_type = "io.containerd.runc.v2"\n';
    node = new MemoryNode(
      plainShape("1.7", `version = 2\nimports = ["${dropIn}"]\n`, {
        version: "1.7.24",
        files: { [dropIn]: `version = 2\n${table}` },
      }),
    );
    expect(await untouched(node.spec([node.runtime("00000001")]))).toMatchObject({
      code: "validation-failed",
      message: expect.stringContaining(`the import ${dropIn} has a table`),
    });
  });

  test("a label that cannot be given to the new file", async () => {
    node.host.put("/sys/fs/selinux/enforce", "1");
    node.host.programs.set("chcon", () => ({ code: 1, stderr: "Operation not permitted" }));
    expect(await untouched(node.spec([node.runtime("00000001")]))).toMatchObject({ code: "access-not-kept" });
  });

  test("an image in which the last file of the last runtime is missing, or has another size", async () => {
    const spec = node.spec([node.runtime("00000001"), node.runtime("00000002")]);
    const kernel = join(node.payloads, "payload-00000002/share/kata-kernel");
    writeFileSync(kernel, "another kernel");
    expect(await untouched(spec)).toMatchObject({
      message: `${kernel} has 14 bytes, but its manifest says 6 bytes`,
    });
    rmSync(kernel);
    expect(await untouched(spec)).toMatchObject({ code: "payload-missing" });
  });

  test("tables whose shim or Kata configuration no file of the payload is", async () => {
    const runtime = node.runtime("00000001");
    const containerd = { ...runtime.containerd, runtimePath: `/opt/edgeless/${runtime.handler}/bin/other` };
    expect(await untouched(node.spec([{ ...runtime, containerd }]))).toMatchObject({
      code: "validation-failed",
      message: expect.stringContaining(`the shim ${containerd.runtimePath} of handler ${runtime.handler} is not there`),
    });
  });
});

test("what was copied is looked at again before the edit", async () => {
  const runtime = node.runtime("00000001");
  node.host.onPoint = (point, when) => {
    if (when === "after" && point.includes("etc/configuration.toml") && point.startsWith("rename"))
      node.host.nodes.delete(runtime.containerd.runtimePath);
  };
  await expect(converge(node.environment(node.spec([runtime])))).rejects.toMatchObject({ code: "validation-failed" });
  expect(node.host.text(configPath)).toBe(adminsFile);
});

describe("whose the payload is", () => {
  const runtimes = "/opt/edgeless";
  const setUp = async () => {
    const runtime = node.runtime("00000001");
    const spec = node.spec([runtime]);
    await converge(node.environment(spec));
    node.host.points.length = 0;
    return {
      spec,
      shim: runtime.containerd.runtimePath,
      configuration: `${runtimes}/${runtime.handler}/etc/configuration.toml`,
    };
  };
  const change = (path: string, rest: object) => {
    const known = node.host.nodes.get(path);
    if (known === undefined) throw new Error(`there is no ${path}`);
    node.host.nodes.set(path, { ...known, ...rest });
  };
  const copied = () => node.host.points.filter((point) => point.startsWith("copy "));

  test.each([
    ["of somebody else", { uid: 65534 }],
    ["of another group", { gid: 65534 }],
    ["that others may write", { mode: 0o777 }],
  ])("a file %s is replaced, although its bytes are right", async (_name, attributes) => {
    const { spec, shim } = await setUp();
    change(shim, attributes);
    await converge(node.environment(spec));
    expect(copied()).toHaveLength(1);
    expect(await node.host.stat(shim)).toMatchObject({ uid: 0, gid: 0, mode: 0o755 });
    expect(node.starts).toBe(2);
  });

  test("so is such a file that was there before anything was installed", async () => {
    const runtime = node.runtime("00000001");
    node.host.put(runtime.containerd.runtimePath, "shim of 00000001", { mode: 0o755, uid: 65534, gid: 65534 });
    await converge(node.environment(node.spec([runtime])));
    expect(await node.host.stat(runtime.containerd.runtimePath)).toMatchObject({ uid: 0, gid: 0 });
  });

  test("Kata's configuration is written again if it is not root's", async () => {
    const { spec, configuration } = await setUp();
    change(configuration, { uid: 65534, mode: 0o666 });
    expect(await converge(node.environment(spec))).toMatchObject({ changed: true });
    expect(await node.host.stat(configuration)).toMatchObject({ uid: 0, mode: 0o644 });
  });

  test("a rewritten file is replaced, although its time of modification was set back", async () => {
    const { spec, shim } = await setUp();
    change(shim, { content: Buffer.from("evil of 00000001"), ctimeNs: 1n });
    expect(await converge(node.environment(spec))).toMatchObject({ changed: true });
    expect(node.host.text(shim)).toBe("shim of 00000001");
  });

  test("right bytes whose times changed, or are not in an earlier version's journal, are read once and kept", async () => {
    const { spec, shim } = await setUp();
    change(shim, { ctimeNs: 1n });
    expect(await converge(node.environment(spec))).toMatchObject({ changed: true });
    expect(copied()).toEqual([]);
    expect(await converge(node.environment(spec))).toMatchObject({ changed: false });
    const journal = (node.host.text(journalPath) ?? "").replaceAll(/ *"ctimeNs": "\d+",\n/g, "");
    expect(journal).not.toContain("ctimeNs");
    node.host.put(journalPath, journal, { mode: 0o600, uid: 0, gid: 0 });
    expect(await converge(node.environment(spec))).toMatchObject({ changed: true });
    expect(copied()).toEqual([]);
    expect(node.host.text(journalPath)).toContain("ctimeNs");
  });

  test.each([
    ["before the first installation", false],
    ["on a node that serves", true],
  ])("a directory that others can write to is refused, and nothing is changed: %s", async (_name, installed) => {
    const { spec } = await setUp();
    if (!installed) await converge(node.environment(node.spec([])));
    if (!installed) await node.host.makeDirectory(runtimes, 0o755);
    change(runtimes, { uid: 65534, mode: 0o777 });
    const before = Object.entries(node.host.tree()).filter(([path]) => !path.startsWith("/var/log/"));
    expect(await refusalOf(converge(node.environment(spec)))).toBe("not-roots");
    expect(await refusalOf(converge(node.environment(node.spec([node.runtime("00000002")]))))).toBe("not-roots");
    expect(Object.entries(node.host.tree()).filter(([path]) => !path.startsWith("/var/log/"))).toEqual(before);
    change(runtimes, { uid: 0, mode: 0o755 });
    await converge(node.environment(spec));
    expect(node.served).toEqual(spec.runtimes.map(({ handler }) => handler));
  });

  test("nor is the directory of a retired runtime trusted that pods still use", async () => {
    const { spec } = await setUp();
    const [{ handler } = { handler: "" }] = spec.runtimes;
    node.sandboxes.push({ handler, name: "default/web" });
    const next = node.spec([node.runtime("00000002")]);
    change(`${runtimes}/${handler}`, { mode: 0o777 });
    expect(await refusalOf(converge(node.environment(next)))).toBe("not-roots");
    change(`${runtimes}/${handler}`, { mode: 0o755 });
    expect(await converge(node.environment(next))).toMatchObject({ blocked: [{ handler }] });
    change(`${runtimes}/${handler}`, { mode: 0o777 });
    expect(await refusalOf(converge(node.environment(next)))).toBe("not-roots");
  });

  test("nothing is removed below a directory that others can write to", async () => {
    const { shim } = await setUp();
    change(runtimes, { mode: 0o777 });
    expect(await refusalOf(converge(node.environment(node.spec([]))))).toBe("not-roots");
    expect(await node.host.stat(shim)).toBeDefined();
  });
});
