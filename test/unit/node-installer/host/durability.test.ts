import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createNodeHost } from "../../../../node-installer/host/node-host.ts";

/** What another program does just when one of the two calls has returned. */
const meanwhile = vi.hoisted(() => ({ opened: () => {}, renamed: () => {} }));
vi.mock("node:fs", async (original) => {
  const real = await original<typeof import("node:fs")>();
  const openSync: typeof real.openSync = (...given) => {
    const descriptor = real.openSync(...given);
    meanwhile.opened();
    return descriptor;
  };
  const renameSync: typeof real.renameSync = (...given) => {
    real.renameSync(...given);
    meanwhile.renamed();
  };
  return { ...real, openSync, renameSync };
});

let root: string;
/** Path and content of everything that was synced, as it was at that moment. */
let synced: [path: string, content: string][];
const at = (path: string) => join(root, path);
const digest = (text: string) => createHash("sha256").update(text).digest("hex");

beforeEach(async () => {
  root = fs.realpathSync(fs.mkdtempSync(join(tmpdir(), "disk-")));
  fs.mkdirSync(at("etc"));
  synced = [];
  const handle = await open(at("etc"), "r");
  const prototype: FileHandle = Object.getPrototypeOf(handle);
  const sync = prototype.sync;
  vi.spyOn(prototype, "sync").mockImplementation(async function (this: FileHandle) {
    await sync.call(this);
    const path = fs.readlinkSync(`/proc/self/fd/${this.fd}`);
    synced.push([path, fs.statSync(path).isFile() ? fs.readFileSync(path, "utf8") : ""]);
  });
  await handle.close();
});
afterEach(() => {
  Object.assign(meanwhile, { opened: () => {}, renamed: () => {} });
  vi.restoreAllMocks();
  fs.rmSync(root, { recursive: true });
});

test("a file that is created is on the disk with all its bytes", async () => {
  await createNodeHost({ root }).createFile("/etc/file", "content", { mode: 0o640, uid: 0, gid: 0 });
  expect(synced).toEqual([[at("etc/file"), "content"]]);
});

test("so is a copied payload file", async () => {
  fs.writeFileSync(at("source"), "payload");
  const expected = { size: 7, sha256: digest("payload"), mode: 0o755 };
  await createNodeHost({ root }).copyPayloadFile(at("source"), "/etc/shim", expected);
  expect(synced).toEqual([[at("etc/shim"), "payload"]]);
});

test("and a directory's entries", async () => {
  await createNodeHost({ root }).syncDirectory("/etc");
  expect(synced).toEqual([[at("etc"), ""]]);
});

test("a file that took the name after the comparison is not replaced", async () => {
  fs.writeFileSync(at("etc/file"), "old");
  fs.writeFileSync(at("etc/staged"), "new");
  fs.writeFileSync(at("etc/theirs"), "theirs");
  meanwhile.opened = () => {
    meanwhile.opened = () => {};
    fs.cpSync(at("etc/theirs"), at("etc/other"));
    fs.rmSync(at("etc/file"));
    fs.linkSync(at("etc/other"), at("etc/file"));
  };
  const answer = await createNodeHost({ root }).replaceFile("/etc/file", "/etc/staged", digest("old"));
  expect(answer).toEqual({ result: "changed" });
  expect(fs.readFileSync(at("etc/file"), "utf8")).toBe("theirs");
});

test("what a program writes into the old file while it is replaced comes back", async () => {
  fs.writeFileSync(at("etc/file"), "old");
  fs.writeFileSync(at("etc/staged"), "new");
  const writer = fs.openSync(at("etc/file"), "a");
  meanwhile.renamed = () => {
    fs.writeSync(writer, " and late");
  };
  const answer = await createNodeHost({ root }).replaceFile("/etc/file", "/etc/staged", digest("old"));
  fs.closeSync(writer);
  expect(answer).toEqual({ result: "foreign", bytes: Buffer.from("old and late") });
  expect(fs.readFileSync(at("etc/file"), "utf8")).toBe("new");
});
