import { afterEach, beforeEach, expect, test } from "vitest";
import { digestOf, swapFile, writeFileAtomically } from "../../../../node-installer/host/files.ts";
import { backUp } from "../../../../node-installer/install/backup.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import type { InstallSpec } from "../../../../runtime/spec.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { backupsOn } from "./outcomes.ts";

let node: MemoryNode;
let spec: InstallSpec;
beforeEach(() => {
  node = new MemoryNode();
  spec = node.spec([node.runtime("00000001")]);
});
afterEach(() => node.close());

const own = { mode: 0o640, uid: 0, gid: 0 };
const backups = () => backupsOn(node);
const uninstall = () => converge(node.environment(node.spec([])));

test("a backup is on the disk under its name, and holds what was written to it", async () => {
  const { host } = node;
  host.settle();
  const backup = await backUp(host, configPath, Buffer.from(adminsFile), own);
  expect(host.text(backup)).toBe(adminsFile);
  expect(host.unsynced()).toEqual([]);
  const read = host.readFile.bind(host);
  host.readFile = async (path) => (path.endsWith(".bak") ? Buffer.from("damaged") : read(path));
  await expect(backUp(host, configPath, Buffer.from(adminsFile), own)).rejects.toThrow(
    "does not hold what was written",
  );
  expect(backups()).toEqual([backup]);
});

test("neither a kill right after a backup nor a disk that cannot be written leaves one behind for ever", async () => {
  const { host } = node;
  host.onPoint = (point, when) => {
    if (when === "after" && point.startsWith("fsync") && point.endsWith(".bak")) host.kill();
  };
  await converge(node.environment(spec)).catch(() => undefined);
  host.revive();
  expect(backups()).toHaveLength(1);
  let full = false;
  host.onPoint = (point, when) => {
    if (when === "before" && full) throw Object.assign(new Error("EROFS: injected"), { code: "EROFS" });
    if (when === "after" && point.startsWith("fsync") && point.endsWith(".bak")) full = true;
  };
  await converge(node.environment(spec)).catch(() => undefined);
  host.onPoint = () => undefined;
  expect(backups()).toHaveLength(1);

  await converge(node.environment(spec));
  await uninstall();
  expect(backups()).toEqual([]);
  expect(node.host.text(configPath)).toBe(adminsFile);
});

test.each([
  ["it is", /^fsync .*\.bak$/],
  ["its name is", /^fsync \/etc\/containerd\/$/],
])("a backup that is not on the disk, because %s not, is not left", async (_, sick) => {
  node.host.onPoint = (point, when) => {
    if (when === "before" && sick.test(point)) throw Object.assign(new Error("EIO: injected"), { code: "EIO" });
  };
  await expect(backUp(node.host, configPath, Buffer.from("# of before\n"), own)).rejects.toThrow("EIO");
  expect(backups()).toEqual([]);
});

test("a half-written backup is no copy of the file as the administrator left it", async () => {
  await converge(node.environment(spec));
  const [first = ""] = backups();
  node.host.put(`${configPath}.20250101T000000.000Z.bak`, adminsFile.slice(0, 10));
  node.host.put(`${configPath}.20250102T000000.000Z.bak`, "# before the journal was lost\n");
  node.host.put(`${configPath}.mine.bak`, "# not ours\n");
  await converge(node.environment(node.spec([...spec.runtimes, node.runtime("00000002")])));
  expect(backups()).toContain(first);
  expect(backups()).not.toContain(`${configPath}.20250101T000000.000Z.bak`);
  expect(backups()).toContain(`${configPath}.20250102T000000.000Z.bak`);
  await uninstall();
  expect(backups()).toEqual([`${configPath}.mine.bak`]);
});

test("the backup of a first installation that was killed before its record is not left beside the next one", async () => {
  node.host.onPoint = (point, when) => {
    if (when === "after" && /^fsync .*\.bak$/.test(point)) node.host.kill();
  };
  await converge(node.environment(spec)).catch(() => undefined);
  node.host.revive();
  const [orphan] = backups();
  await converge(node.environment(spec));
  expect(backups()).toHaveLength(1);
  expect(backups()).not.toContain(orphan);
});

test("a file that cannot be replaced is left without its staged form", async () => {
  const { host } = node;
  host.onPoint = (point, when) => {
    if (when === "before" && point === `rename ${configPath}`)
      throw Object.assign(new Error("EBUSY: it is a mount"), { code: "EBUSY" });
  };
  await expect(converge(node.environment(spec))).rejects.toThrow("EBUSY");
  expect(Object.keys(host.tree()).filter((path) => path.includes("contrast-staged"))).toEqual([]);
});

test.each(["is installed", "takes another's place", "is removed"])(
  "when a runtime %s, everything that was written is on the disk in the end",
  async (what) => {
    if (what !== "is installed") await converge(node.environment(spec));
    node.host.settle();
    const next = what === "is installed" ? spec.runtimes : what === "is removed" ? [] : [node.runtime("00000002")];
    await converge(node.environment(node.spec(next)));
    // The lock, the log, and what is removed of a guard that has no order any more may come back.
    const allowed = /^\/(run|var\/log|etc\/systemd\/system)(\/|$)|\/guard\.(sh|fired)$/;
    expect(node.host.unsynced().filter((path) => !allowed.test(path))).toEqual([]);
  },
);

test("a replaced file has its name on the disk before anything else is done, and so has a removed one", async () => {
  const { host } = node;
  host.settle();
  await swapFile(host, configPath, digestOf(Buffer.from(adminsFile)), Buffer.from("version = 3\n"), own);
  expect(host.unsynced()).toEqual([]);
  await swapFile(host, configPath, digestOf(Buffer.from("version = 3\n")), undefined, own);
  expect(host.unsynced()).toEqual([]);
  await writeFileAtomically(host, configPath, adminsFile, own);
  expect(host.unsynced()).toEqual([]);
});
