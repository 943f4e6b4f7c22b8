import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { firedPath } from "../../node-installer/host/guard.ts";
import { buildPrograms, bundle } from "../../tools/image/bundle.ts";
import { breakOn, heal, makeBreakable } from "./breakable-containerd.ts";
import type { Fault } from "./faulty-installer.ts";
import { useCluster } from "./harness.ts";
import { configPath, NodeWithInstaller } from "./installer-on-node.ts";
import { type SmallPayload, smallPayload, specOf } from "./small-payloads.ts";

/** A node that the installer does not have to itself: other installers, other writers of containerd's file, full disks. */
const cluster = useCluster("crowded");
const group = "workers";

let directory: string;
let one: SmallPayload;
let two: SmallPayload;
let node: NodeWithInstaller;
let original: string;
let spec: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "crowded-"));
  one = await smallPayload(directory, "one");
  two = await smallPayload(directory, "two");
  spec = specOf(group, [one.runtime]);
  const { nodeInstaller } = await buildPrograms();
  const faultyInstaller = join(directory, "faulty-installer.mjs");
  await bundle([{ from: "test/cluster/faulty-installer.ts", to: faultyInstaller }]);
  node = new NodeWithInstaller(cluster(), "node-1");
  await node.prepare([nodeInstaller, faultyInstaller], [one, two]);
  await node.keep("empty");
  original = (await node.read(configPath)) ?? "";
  await makeBreakable(node);
});
afterAll(() => rm(directory, { recursive: true, force: true }));
beforeEach(async () => {
  await heal(node);
  await node.reset("empty");
});

const replacing = `replace ${configPath}`;
const at = (point: string, when: Fault["when"], rest: Pick<Fault, "command" | "survives">): Fault => ({
  point,
  occurrence: 1,
  when,
  ...rest,
});
const starts = async () => (await node.run("journalctl", "--unit=containerd", "--output=cat")).split("Started ").length;
const backups = async () =>
  (await node.run("ls", "/etc/containerd")).split("\n").filter((name) => name.endsWith(".bak"));
const leftovers = async () =>
  (await node.run("ls", "-A", "/etc/containerd")).split("\n").filter((name) => /^\./.test(name));

describe("other writers", () => {
  test("two installers at once: one edit, one backup, one restart", async () => {
    const before = await starts();
    const both = await Promise.all([node.installer("install", spec), node.installer("install", spec)]);
    expect(both.map(({ code }) => code)).toEqual([0, 0]);
    expect(both.map(({ stderr }) => stderr.split(":")[0]).toSorted()).toEqual(["Installed", "Nothing to do"]);
    expect(await backups()).toHaveLength(1);
    expect(await starts()).toBe(before + 1);
    expect(await node.served()).toEqual([one.runtime.handler]);
  });

  const line = "# written by somebody else";
  const append = `echo '${line}' >>${configPath}`;
  const rename = `sed -i '$a ${line}' ${configPath}`;
  const overwrite = `printf '%s\\n' '${line}' >/run/theirs; cat ${configPath}.*.bak >>/run/theirs; cp /run/theirs ${configPath}`;

  test.each([
    ["is appended before the rename", at(replacing, "before", { command: append })],
    ["is renamed into place before the rename", at(replacing, "before", { command: rename })],
    ["is appended after the rename", at(replacing, "after", { command: append })],
    ["takes our bytes away after the rename", at(replacing, "after", { command: overwrite })],
    ["is renamed into place before the gate", at("step gate", "before", { command: rename })],
    ["is appended before the commit", at("step commit", "before", { command: append })],
  ])("a line that %s stays, with our handler, and an uninstallation leaves it", async (_, fault) => {
    const { code, stderr } = await node.faultyInstaller(spec, { fault: { ...fault, survives: true } });
    expect(code, stderr).toBe(0);
    expect(await node.settled()).toContain(line);
    expect(await node.served()).toEqual([one.runtime.handler]);
    expect((await node.installer("uninstall", spec)).code).toBe(0);
    const left = (await node.settled()).split("\n").filter((text) => text !== line);
    expect(left.join("\n")).toBe(original);
  });

  test.each([
    ["rolls back", true],
    ["is dead", false],
  ])(
    "a line that comes after the rename stays when the handler breaks the CRI and the installer %s",
    async (_, survives) => {
      await breakOn(node, one.runtime.handler, "cri");
      const { code } = await node.faultyInstaller(spec, {
        fault: at(replacing, "after", { command: append, survives }),
      });
      expect(code).toBe(survives ? 4 : 128);
      if (!survives) await node.run("systemctl", "restart", "containerd.service");
      expect(await node.settled()).toBe(`${original}${line}\n`);
    },
  );

  test("a program that keeps writing loses no line", async () => {
    const count = 60;
    // Alternately appends and renames, without a pause longer than an installer's step.
    const writer = `for n in $(seq ${count}); do
  if [ $((n % 2)) = 0 ]; then echo "# line $n" >>${configPath}; else sed -i "\\$a # line $n" ${configPath}; fi
  sleep 0.05
done`;
    const writing = node.run("sh", "-c", writer);
    const { code, stderr } = await node.installer("install", spec);
    await writing;
    expect([0, 3, 4], stderr).toContain(code);
    const file = await node.settled();
    const lines = Array.from({ length: count }, (_, index) => `# line ${index + 1}`);
    expect(lines.filter((text) => !file.split("\n").includes(text))).toEqual([]);
    // Whoever writes loads it in the end: what is not loaded would be refused.
    await node.run("systemctl", "restart", "containerd.service");
    await node.settled();
    const last = await node.installer("install", spec, "--retry");
    expect(last.code, last.stderr).toBe(0);
    const end = await node.settled();
    expect(lines.filter((text) => !end.split("\n").includes(text))).toEqual([]);
    expect(await node.served()).toEqual([one.runtime.handler]);
  });
});

test("a file over which something is mounted: check-host warns, an installation refuses, and both say what to do", async () => {
  await node.run("mount", "--bind", configPath, configPath);
  try {
    const says = `${configPath} is a mount point of its own (findmnt ${configPath})`;
    const check = await node.installer("check-host", spec);
    expect({ code: check.code, said: check.stdout }).toMatchObject({ code: 0, said: expect.stringContaining(says) });
    expect(check.stdout).toContain("warning (configuration-mounted)");
    const { code, stderr } = await node.installer("install", spec);
    expect(code).toBe(3);
    expect(stderr).toContain(says);
  } finally {
    await node.run("umount", configPath);
  }
  expect((await node.installer("install", spec)).code).toBe(0);
});

const state = "/var/lib/contrast-runtime";
const containerd = dirname(configPath);
/** Fills up a small file system. */
const fill = (path: string) => `dd if=/dev/zero of=${path}/fill bs=1k 2>/dev/null || true`;

/** Mounts a file system of that size on the directory, and unmounts it afterwards. */
async function onSmallDisk(path: string, size: string, action: () => Promise<void>): Promise<void> {
  const mount = `mkdir -p ${path} && cp -a ${path} /run/kept && mount -t tmpfs -o size=${size} small ${path} && cp -a /run/kept/. ${path}/`;
  await node.run("sh", "-ec", mount);
  try {
    await action();
  } finally {
    // A lazy unmount: open files stay usable, and the directory's old content is visible again.
    await node.run("sh", "-c", `umount -l ${path}; rm -rf /run/kept`);
  }
}
const makeRoom = (path: string) => node.run("rm", "-f", `${path}/fill`);

describe("a full disk", () => {
  test.each([
    ["of the payloads", "/opt/edgeless", /^node-installer: The payload needs .* on the file system of \/opt\/edgeless/],
    [
      "of containerd's file",
      containerd,
      /^node-installer: The change of containerd's file needs .* of \/etc\/containerd/,
    ],
    ["of the journal", state, /^node-installer: The installer's journal needs .* of \/var\/lib\/contrast-runtime/],
  ])("%s is refused with a sentence, nothing is changed, and the next run works", async (_, path, says) => {
    await onSmallDisk(path, "200m", async () => {
      await node.run("sh", "-c", fill(path));
      const before = await starts();
      const { code, stderr } = await node.installer("install", spec);
      expect(code).toBe(3);
      expect(stderr).toMatch(says);
      expect(await node.settled()).toBe(original);
      expect(await backups()).toEqual([]);
      expect(await starts()).toBe(before);
      expect((await node.tryRun("ls", "-A", "/opt/edgeless")).stdout.trim()).toMatch(/^(fill)?$/);
      await makeRoom(path);
      expect((await node.installer("install", spec)).code).toBe(0);
      expect(await node.served()).toEqual([one.runtime.handler]);
    });
  });

  test.each([
    ["containerd's file, before its backup", containerd, "step back-up", 1],
    ["containerd's file, before the edit", containerd, "step edit", 4],
    ["the journal, before the edit", state, "step edit", 1],
    ["the journal, after the commit", state, "step record", 1],
  ])(
    "that fills up in the middle, of %s: reported with the file's name, and the next run works",
    async (_, path, point, exit) => {
      await onSmallDisk(path, "8m", async () => {
        const fault = at(point, "before", { command: fill(path), survives: true });
        const { code, stderr } = await node.faultyInstaller(spec, { fault });
        expect(code).toBe(exit);
        expect(stderr).toMatch(/ENOSPC: no space left on device, write '\/.*'/);
        const file = await node.settled();
        expect(file === original || point === "step record").toBe(true);
        expect(await leftovers()).toEqual([]);
        await makeRoom(path);
        expect((await node.installer("install", spec)).code).toBe(0);
        expect(await node.served()).toEqual([one.runtime.handler]);
      });
    },
  );

  test.each([
    ["the journal", state],
    ["containerd's file", containerd],
  ])(
    "of %s when the installer is killed after its edit: the host alone restores the old bytes, with one restart",
    async (_, path) => {
      await onSmallDisk(path, "8m", async () => {
        const before = await starts();
        const { code } = await node.faultyInstaller(spec, { fault: at(replacing, "after", { command: fill(path) }) });
        expect(code).toBe(128);
        expect(await node.settled()).toBe(original);
        expect(await node.exists(firedPath)).toBe(true);
        // If the guard could not write its outcome, it would run again a second later, with another restart.
        await node.run("systemctl", "start", "contrast-runtime-guard.service");
        expect(await starts()).toBe(before + 1);
        await makeRoom(path);
        expect((await node.installer("install", spec)).code).toBe(0);
      });
    },
  );

  test("while a handler breaks the CRI: the guard restores what the installer cannot write back", async () => {
    await breakOn(node, one.runtime.handler, "cri");
    await onSmallDisk(containerd, "8m", async () => {
      const fault = at("step gate", "before", { command: fill(containerd), survives: true });
      const { code, stderr } = await node.faultyInstaller(spec, { fault });
      expect(code).toBe(5);
      expect(stderr).toMatch(/could not be restored, which the guard on the host will try next: ENOSPC/);
      expect(await node.settled()).toBe(original);
    });
  });
});
