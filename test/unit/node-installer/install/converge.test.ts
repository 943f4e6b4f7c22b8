import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { journalPath, readJournal } from "../../../../node-installer/host/journal.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import { RolledBack } from "../../../../node-installer/install/rollback.ts";
import { Refusal } from "../../../../runtime/refusal.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";

let node: MemoryNode;
beforeEach(() => {
  node = new MemoryNode();
});
afterEach(() => node.close());

const refusal = async (action: Promise<unknown>): Promise<string> => {
  const error: unknown = await action.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof Refusal)) throw new Error(`not refused: ${String(error)}`);
  return error.code;
};
const backups = () => Object.keys(node.host.tree()).filter((path) => path.endsWith(".bak"));

describe("install", () => {
  test("several handlers in one transaction: one edit, one restart, one backup with the old bytes", async () => {
    const spec = node.spec([node.runtime("00000001"), node.runtime("00000002")]);
    const outcome = await converge(node.environment(spec));
    expect(outcome).toMatchObject({ changed: true, blocked: [] });
    expect(node.served).toEqual(spec.runtimes.map(({ handler }) => handler));
    expect(node.starts).toBe(2);
    expect(backups().map((path) => node.host.text(path))).toEqual([adminsFile]);
    expect(node.host.text(configPath)?.startsWith(adminsFile)).toBe(true);
    expect(Object.keys(node.host.tree()).filter((path) => path.includes("guard"))).toEqual([]);
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

  test("a full disk is refused before anything is written, and a backup that nothing refers to is removed", async () => {
    const spec = node.spec([node.runtime("00000001")]);
    const { free } = node.host;
    node.host.free = { bytes: 512 << 10, inodes: 1e6 };
    const files = () => Object.keys(node.host.tree()).filter((path) => !path.startsWith("/var/log/"));
    const before = files();
    expect(await refusal(converge(node.environment(spec)))).toBe("no-space");
    expect(files()).toEqual(before);
    node.host.free = free;
    node.host.onPoint = (point) => {
      if (point.includes(".pristine.")) throw Object.assign(new Error("ENOSPC: injected"), { code: "ENOSPC" });
    };
    await expect(converge(node.environment(spec))).rejects.toThrow("ENOSPC");
    expect(backups()).toEqual([]);
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
    expect(backups()).toHaveLength(1);
  });

  test("a payload that does not match its manifest is refused before containerd's file is touched", async () => {
    const runtime = node.runtime("00000001");
    const [shim] = runtime.files;
    if (shim) shim.sha256 = "0".repeat(64);
    await expect(converge(node.environment(node.spec([runtime])))).rejects.toThrow();
    expect(node.host.text(configPath)).toBe(adminsFile);
    expect(node.starts).toBe(1);
  });

  test("a change that the node's own containerd cannot try is refused, whatever version the spec states", async () => {
    node.host.programs.delete("containerd");
    const spec = node.spec([node.runtime("00000001")]);
    const stated = { ...spec, distribution: { name: "containerd" as const, containerdVersion: "2.1.4" } };
    expect(await refusal(converge(node.environment(stated)))).toBe("containerd-missing");
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
    expect(await refusal(converge(node.environment(spec)))).toBe("no-space");
    node.host.free = { bytes: 1e12, inodes: 10 };
    expect(await refusal(converge(node.environment(spec)))).toBe("no-inodes");
    expect(node.host.points.filter((point) => point.startsWith("copy"))).toEqual([]);
  });

  test("a node whose CRI was broken before is left alone", async () => {
    node.host.put(configPath, `${adminsFile}[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.broken]\n`);
    node.breaks.add("broken");
    node.start();
    const before = node.host.text(configPath);
    expect(await refusal(converge(node.environment(node.spec([node.runtime("00000001")]))))).toBe("cri-broken-before");
    expect(node.host.text(configPath)).toBe(before);
    expect(node.starts).toBe(2);
  });

  test("another group's node is refused, and nothing changes", async () => {
    await converge(node.environment(node.spec([node.runtime("00000001")], "first")));
    const before = node.host.tree();
    const environment = node.environment(node.spec([node.runtime("00000002")], "second"));
    expect(await refusal(converge(environment))).toBe("other-group");
    expect(node.host.tree()).toEqual(before);
  });

  test("if the file is a link, its target is edited and keeps its mode and owner", async () => {
    node.host.put("/data/containerd.toml", adminsFile, { mode: 0o640, uid: 12, gid: 34 });
    node.host.link(configPath, "/data/containerd.toml");
    await converge(node.environment(node.spec([node.runtime("00000001")])));
    expect(await node.host.stat("/data/containerd.toml")).toMatchObject({ mode: 0o640, uid: 12, gid: 34 });
    expect(node.host.nodes.get(configPath)?.kind).toBe("link");
  });
});

describe("containerd reads another file than the one that the runtimes are in", () => {
  const other = "/etc/containerd/other.toml";
  const otherText = `${adminsFile}[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.another]\n  runtime_type = "io.containerd.runc.v2"\n`;
  beforeEach(async () => {
    await converge(node.environment(node.spec([node.runtime("00000001")])));
    const unit = `[Service]\nExecStart=/usr/bin/containerd --config ${other}\nKillMode=process\n`;
    node.host.put("/etc/systemd/system/containerd.service", unit);
    node.host.put(other, otherText);
  });

  test("is refused with both names, and nothing is written", async () => {
    const before = node.host.tree();
    const again = converge(node.environment(node.spec([node.runtime("00000001")])));
    await expect(again).rejects.toThrow(`${other} now, but the runtimes were installed into ${configPath}`);
    expect(node.host.tree()).toEqual(before);
  });

  test("uninstalling, as the refusal advises, cleans the old file and leaves the other one alone", async () => {
    await converge(node.environment(node.spec([])));
    expect(node.host.text(configPath)).toBe(adminsFile);
    expect(node.host.text(other)).toBe(otherText);
    expect(node.host.text(journalPath)).toBeUndefined();
  });
});

describe("a file with more than mode and owner", () => {
  const staged = "/etc/containerd/.config.toml.contrast-staged";
  let said: string[];
  const program = (name: string, code = 0) =>
    node.host.programs.set(name, (args) => {
      said.push([name, ...args].join(" "));
      return { code, stderr: code === 0 ? "" : "Operation not permitted" };
    });
  const withList = () =>
    node.host.programs.set("ls", () => ({ code: 0, stdout: "-rw-r-----+ 1 root root 9 config.toml\n" }));
  const install = () => converge(node.environment(node.spec([node.runtime("00000001")])));
  beforeEach(() => {
    said = [];
    for (const name of ["chcon", "cp", "chown"]) program(name);
  });

  test("passes its SELinux label on to its backup and its replacement", async () => {
    node.host.put("/sys/fs/selinux/enforce", "1");
    await install();
    expect(said).toEqual([
      expect.stringMatching(`^chcon --reference=${configPath} ${configPath}\\..*\\.bak$`),
      `chcon --reference=${configPath} ${staged}`,
    ]);
  });

  test("passes its access control list on to them before they are given to another user", async () => {
    node.host.put(configPath, adminsFile, { mode: 0o640, uid: 1234, gid: 2345 });
    withList();
    await install();
    expect(said.slice(2)).toEqual([
      `cp --attributes-only --preserve=mode ${configPath} ${staged}`,
      `chown 1234:2345 ${staged}`,
    ]);
  });

  test.each([
    ["SELinux label", "chcon", () => node.host.put("/sys/fs/selinux/enforce", "1")],
    ["access control list", "cp", withList],
  ])("is not replaced if its %s cannot be kept", async (what, name, prepare) => {
    prepare();
    program(name, 1);
    await expect(install()).rejects.toThrow(`The ${what} of ${configPath} could not be given`);
    expect(node.host.text(configPath)).toBe(adminsFile);
    expect(node.starts).toBe(1);
    expect(Object.keys(node.host.tree()).filter((path) => /\.bak|staged/.test(path))).toEqual([]);
  });
});

describe("rollback", () => {
  test("a handler that breaks the CRI: exact bytes back, serving, and not retried automatically", async () => {
    const good = node.runtime("00000001");
    await converge(node.environment(node.spec([good])));
    const file = node.host.text(configPath);
    const bad = node.runtime("0000000b");
    node.breaks.add(bad.handler);
    const spec = node.spec([good, bad]);
    await expect(converge(node.environment(spec))).rejects.toThrow(RolledBack);
    expect(node.host.text(configPath)).toBe(file);
    expect(node.served).toEqual([good.handler]);

    const starts = node.starts;
    expect(await refusal(converge(node.environment(spec)))).toBe("failed-before");
    expect(node.starts).toBe(starts);
  });

  test("is retried when somebody asks (with a new token, once) or when the spec changes", async () => {
    const bad = node.runtime("0000000b");
    node.breaks.add(bad.handler);
    const spec = node.spec([bad]);
    await expect(converge(node.environment(spec))).rejects.toThrow(RolledBack);
    await expect(converge(node.environment(spec), { retry: true })).rejects.toThrow(RolledBack);
    await expect(converge(node.environment(spec), { retryToken: "one" })).rejects.toThrow(RolledBack);
    expect(await refusal(converge(node.environment(spec), { retryToken: "one" }))).toBe("failed-before");
    node.breaks.clear();
    await converge(node.environment({ ...spec, atOnce: 2 }));
    expect(node.served).toEqual([bad.handler]);
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
  expect(await refusal(converge(node.environment(spec)))).toBe("failed-before");
  expect(node.starts).toBe(starts);
  expect(node.host.text(configPath)).toBe(installed);
});

test("a change that was interrupted after its restart is compared with what the node served before the change", async () => {
  const spec = node.spec([node.runtime("00000001")]);
  node.displaced.add("runc");
  node.host.onPoint = (point, when) => {
    if (when === "after" && point === "run systemctl restart containerd.service") node.host.kill();
  };
  await expect(converge(node.environment(spec))).rejects.toThrow();
  node.host.revive();
  expect(await refusal(converge(node.environment(spec)))).toBe("failed-before");
  expect(node.host.text(configPath)).toBe(adminsFile);
  expect(node.log.join("")).toContain("handler runc is not served");
});

test("a change that an earlier version began, with a boot id in its journal, is finished", async () => {
  const spec = node.spec([node.runtime("00000001")]);
  node.host.onPoint = (point, when) => {
    if (when === "after" && point === "run systemctl restart containerd.service") node.host.kill();
  };
  await expect(converge(node.environment(spec))).rejects.toThrow();
  node.host.revive();
  const journal = node.host.text(journalPath) ?? "";
  node.host.put(journalPath, journal.replace('"transaction": {', '"transaction": {"bootId": "2b1f0c52",'));
  await converge(node.environment(spec));
  expect(node.served).toEqual(spec.runtimes.map(({ handler }) => handler));
  expect(node.host.text(journalPath)).not.toContain("bootId");
});

describe("somebody's request for another attempt", () => {
  test("does not count if it came before the failure", async () => {
    await converge(node.environment(node.spec([node.runtime("00000001")])), { retryToken: "early" });
    const bad = node.runtime("0000000b");
    node.breaks.add(bad.handler);
    const spec = node.spec([bad]);
    await expect(converge(node.environment(spec), { retryToken: "early" })).rejects.toThrow(RolledBack);
    expect(await refusal(converge(node.environment(spec), { retryToken: "early" }))).toBe("failed-before");
  });
});

describe("foreign writers", () => {
  const foreign = `${adminsFile}# another installer was here\n`;

  test("an edit between our reading and our rename is kept, and the change is planned anew", async () => {
    let done = false;
    node.host.onPoint = (point, when) => {
      if (done || when !== "before" || point !== `rename ${configPath}`) return;
      done = true;
      node.host.put(configPath, foreign);
    };
    await converge(node.environment(node.spec([node.runtime("00000001")])));
    expect(node.host.text(configPath)?.startsWith(foreign)).toBe(true);
    expect(node.served).toHaveLength(1);
  });

  test("an edit right after our rename is kept, and our handlers are added to it again", async () => {
    let done = false;
    node.host.onPoint = (point, when) => {
      if (done || when !== "after" || point !== `rename ${configPath}`) return;
      done = true;
      node.host.put(configPath, foreign);
    };
    // The daemon is restarted with the foreign bytes, so the gate cannot pass: the change is planned anew, not rolled back.
    await converge(node.environment(node.spec([node.runtime("00000001")])));
    expect(node.host.text(configPath)?.startsWith(foreign)).toBe(true);
    expect(node.served).toHaveLength(1);
    expect(Object.keys(node.host.tree()).filter((path) => path.includes("guard"))).toEqual([]);
  });

  test("an edit that keeps our block survives the rollback", async () => {
    const bad = node.runtime("0000000b");
    node.breaks.add(bad.handler);
    let done = false;
    node.host.onPoint = (point, when) => {
      if (done || when !== "after" || point !== `rename ${configPath}`) return;
      done = true;
      node.host.put(configPath, `${node.host.text(configPath)}# added by hand\n`);
    };
    await expect(converge(node.environment(node.spec([bad])))).rejects.toBeInstanceOf(RolledBack);
    expect(node.host.text(configPath)).toBe(`${adminsFile}# added by hand\n`);
    expect(node.served).toEqual([]);
  });

  test("a writer that never stops is reported, and its bytes stay", async () => {
    let count = 0;
    node.host.onPoint = (point, when) => {
      if (when !== "before" || point !== `rename ${configPath}`) return;
      count += 1;
      node.host.put(configPath, `${adminsFile}# ${count}\n`);
    };
    expect(await refusal(converge(node.environment(node.spec([node.runtime("00000001")]))))).toBe("file-contested");
    expect(node.host.text(configPath)).toBe(`${adminsFile}# ${count}\n`);
  });
});

describe("uninstall and retirement", () => {
  const uninstall = (spec: ReturnType<MemoryNode["spec"]>) =>
    converge(node.environment({ ...spec, runtimes: [] }), { refuseBlocked: true });
  const ofTheHost = () =>
    Object.fromEntries(
      Object.entries(node.host.tree()).filter(([path]) => !path.startsWith("/var/log/contrast-runtime/")),
    );

  test("leaves the host as it was, except for the log", async () => {
    const before = ofTheHost();
    const spec = node.spec([node.runtime("00000001"), node.runtime("00000002")]);
    await converge(node.environment(spec));
    await uninstall(spec);
    expect(ofTheHost()).toEqual(before);
    expect(node.served).toEqual([]);
    expect(node.host.nodes.has("/opt/edgeless")).toBe(false);
    expect(node.host.nodes.has("/var/lib/contrast-runtime")).toBe(false);
  });

  test("removes the file again if there was none", async () => {
    node.close();
    node = new MemoryNode("");
    node.host.nodes.delete(configPath);
    const before = ofTheHost();
    const spec = node.spec([node.runtime("00000001")]);
    await converge(node.environment(spec));
    await uninstall(spec);
    expect(ofTheHost()).toEqual(before);
  });

  test("a hundred cycles end with the original bytes", async () => {
    const before = ofTheHost();
    for (let cycle = 0; cycle < 100; cycle += 1) {
      const spec = node.spec([node.runtime(cycle.toString(16).padStart(8, "0"))]);
      await converge(node.environment(spec));
      await uninstall(spec);
    }
    expect(ofTheHost()).toEqual(before);
  });

  test("an administrator's later edit stays", async () => {
    const spec = node.spec([node.runtime("00000001")]);
    await converge(node.environment(spec));
    node.host.put(configPath, `# mine\n${node.host.text(configPath)}`);
    node.start();
    await uninstall(spec);
    expect(node.host.text(configPath)).toBe(`# mine\n${adminsFile}`);
    expect(backups()).toEqual([]);
  });

  test("an administrator's edit between two installations is not undone by the uninstall", async () => {
    const [first, second] = [node.runtime("00000001"), node.runtime("00000002")];
    await converge(node.environment(node.spec([first])));
    node.host.put(configPath, `# mine\n${node.host.text(configPath)}`);
    const spec = node.spec([first, second]);
    await converge(node.environment(spec));
    await uninstall(spec);
    expect(node.host.text(configPath)).toBe(`# mine\n${adminsFile}`);
  });

  test("is refused while a pod uses a handler, before anything changes", async () => {
    const runtime = node.runtime("00000001");
    await converge(node.environment(node.spec([runtime])));
    node.sandboxes.push({ handler: runtime.handler, name: "default/web" });
    const before = ofTheHost();
    await expect(uninstall(node.spec([runtime]))).rejects.toThrow(/default\/web/);
    expect(ofTheHost()).toEqual(before);
  });

  test("a runtime that the spec no longer lists is removed once no pod uses it, and served until then", async () => {
    const [old, next] = [node.runtime("00000001"), node.runtime("00000002")];
    await converge(node.environment(node.spec([old])));
    node.sandboxes.push({ handler: old.handler, name: "default/web" });
    const spec = node.spec([next]);
    const outcome = await converge(node.environment(spec));
    expect(outcome.blocked).toEqual([{ handler: old.handler, pods: ["default/web"] }]);
    expect(node.served?.toSorted()).toEqual([old.handler, next.handler]);
    node.sandboxes.length = 0;
    await converge(node.environment(spec));
    expect(node.served).toEqual([next.handler]);
    expect(Object.keys(node.host.tree()).filter((path) => path.includes(old.handler))).toEqual([]);
  });

  test("files stay as long as a process runs from them", async () => {
    const runtime = node.runtime("00000001");
    await converge(node.environment(node.spec([runtime])));
    node.host.running.push({ pid: 77, name: "shim", program: runtime.containerd.runtimePath });
    const { blocked } = await converge(node.environment(node.spec([])));
    expect(blocked).toEqual([{ handler: runtime.handler, pods: ["process shim (77)"] }]);
    expect(await node.host.stat(runtime.containerd.runtimePath)).toBeDefined();
    node.host.running.length = 0;
    await converge(node.environment(node.spec([])));
    expect(await node.host.stat("/opt/edgeless")).toBeUndefined();
  });

  test("a process that only says so keeps no files", async () => {
    const runtime = node.runtime("00000001");
    await converge(node.environment(node.spec([runtime])));
    node.host.put("/proc/77/cmdline", `sh\0-c\0sleep ${runtime.containerd.runtimePath}`);
    node.host.link("/proc/77/exe", "/bin/sh");
    expect((await converge(node.environment(node.spec([])))).blocked).toEqual([]);
    expect(await node.host.stat("/opt/edgeless")).toBeUndefined();
  });
});

test("a lost journal: existing files are adopted, not copied again, and the pristine copy is the file without our block", async () => {
  const spec = node.spec([node.runtime("00000001")]);
  await converge(node.environment(spec));
  for (const path of [...node.host.nodes.keys()]) if (path.startsWith("/var/lib/")) node.host.nodes.delete(path);
  node.host.points.length = 0;
  await converge(node.environment(node.spec([...spec.runtimes, node.runtime("00000002")])));
  expect(node.host.points.filter((point) => point.startsWith("copy") && point.includes("00000001"))).toEqual([]);
  const journal = await readJournal(node.host, "workers");
  expect(node.host.text(journalPath)).toBeDefined();
  await converge(node.environment(node.spec([])), { refuseBlocked: true });
  expect(node.host.text(configPath)).toBe(adminsFile);
  expect(journal.runtimes).toHaveLength(2);
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
    expect(await refusal(converge(node.environment(spec)))).toBe("not-roots");
    expect(await refusal(converge(node.environment(node.spec([node.runtime("00000002")]))))).toBe("not-roots");
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
    expect(await refusal(converge(node.environment(next)))).toBe("not-roots");
    change(`${runtimes}/${handler}`, { mode: 0o755 });
    expect(await converge(node.environment(next))).toMatchObject({ blocked: [{ handler }] });
    change(`${runtimes}/${handler}`, { mode: 0o777 });
    expect(await refusal(converge(node.environment(next)))).toBe("not-roots");
  });

  test("nothing is removed below a directory that others can write to", async () => {
    const { shim } = await setUp();
    change(runtimes, { mode: 0o777 });
    expect(await refusal(converge(node.environment(node.spec([]))))).toBe("not-roots");
    expect(await node.host.stat(shim)).toBeDefined();
  });
});

test("a change that the guard undid meanwhile is not committed", async () => {
  const spec = node.spec([node.runtime("00000001")]);
  node.host.onPoint = (point, when) => {
    if (point !== "probe Status" || when !== "after" || node.starts < 2) return;
    node.host.onPoint = () => undefined;
    // The installer hung for longer than the guard waits.
    node.host.put("/var/lib/contrast-runtime/guard.fired", "outcome=restored\n");
    node.host.put(configPath, adminsFile);
    node.host.nodes.delete("/var/lib/contrast-runtime/guard.armed");
  };
  await expect(converge(node.environment(spec))).rejects.toThrow(/rolled back: the guard on the host undid the change/);
  expect(node.served).toEqual([]);
  expect(node.host.text(configPath)).toBe(adminsFile);
});
