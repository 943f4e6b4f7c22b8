import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { sha256 } from "../../../../runtime/canonical.ts";
import { check } from "../../../../tools/process/run.ts";
import { type PinnedPackage, packagePlaces, pinnedDebianFiles } from "../../../../tools/programs/debian.ts";

const path = "pool/main/t/thing/thing_1.0+b1_amd64.deb";
const quiet = () => {};
let directory: string;
let bytes: Buffer;
let pinned: PinnedPackage;
const servers: Server[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "base-test-"));
  vi.stubEnv("XDG_CACHE_HOME", join(directory, "cache"));
  bytes = await packageWith("the right file");
  pinned = { name: "thing", version: "1.0+b1", archive: "debian", path, sha256: sha256(bytes) };
});
afterEach(async () => {
  vi.unstubAllEnvs();
  vi.unstubAllGlobals();
  for (const server of servers.splice(0)) server.close().closeAllConnections();
  await rm(directory, { recursive: true });
});

async function packageWith(content: string): Promise<Buffer> {
  const tree = await mkdtemp(join(directory, "tree-"));
  await mkdir(join(tree, "DEBIAN"));
  await mkdir(join(tree, "usr"));
  await writeFile(
    join(tree, "DEBIAN", "control"),
    "Package: thing\nVersion: 1.0+b1\nArchitecture: amd64\nMaintainer: t <t@example.com>\nDescription: t\n",
  );
  await writeFile(join(tree, "usr", "file"), content);
  await check("dpkg-deb", ["-b", "--root-owner-group", tree, `${tree}.deb`]);
  return await readFile(`${tree}.deb`);
}

/** A server that has the package in these bytes, or has it no more. */
async function archive(content?: Buffer): Promise<{ url: string; asked: string[] }> {
  const asked: string[] = [];
  const server = createServer(({ url = "" }, response) => {
    asked.push(decodeURIComponent(url));
    if (content) response.writeHead(200, { "content-length": content.length }).end(content);
    else response.writeHead(404).end();
  });
  servers.push(server.listen(0, "127.0.0.1"));
  await once(server, "listening");
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

const fetchFrom = (places: string[], progress: (line: string) => void = quiet) =>
  pinnedDebianFiles({ name: "thing", packages: [pinned], places: async () => places }, progress);

test("a package that the mirror has is taken from there, once", async () => {
  const [mirror, snapshots] = [await archive(bytes), await archive(bytes)];
  const files = await fetchFrom([mirror.url, snapshots.url]);
  expect(await readFile(join(files, "usr", "file"), "utf8")).toBe("the right file");
  expect(await fetchFrom([mirror.url, snapshots.url])).toBe(files);
  expect([mirror.asked, snapshots.asked]).toEqual([[`/${path}`], []]);
});

test.each([
  ["does not have it any more", undefined],
  ["has other bytes under its name", "another file"],
])("where the mirror %s, Debian's snapshot of the day of the pin gives the same files", async (_, other) => {
  const mirror = await archive(other === undefined ? undefined : await packageWith(other));
  const snapshots = await archive(bytes);
  const lines: string[] = [];
  const place = `${snapshots.url}/archive/debian/20260131T120000Z`;
  const files = await fetchFrom([mirror.url, place], (line) => lines.push(line));
  expect(await readFile(join(files, "usr", "file"), "utf8")).toBe("the right file");
  expect(snapshots.asked).toEqual([`/archive/debian/20260131T120000Z/${path}`]);
  expect(lines.join("\n")).toMatch(/thing 1\.0\+b1 is not at http:.*: (404|Hash Sum mismatch)/);
});

test("other bytes than the pinned ones are never used, wherever they come from", async () => {
  const wrong = await packageWith("a trojan");
  const [mirror, snapshots] = [await archive(wrong), await archive(wrong)];
  await expect(fetchFrom([mirror.url, snapshots.url])).rejects.toThrow(
    new RegExp(
      `thing 1\\.0\\+b1 with the SHA-256 ${pinned.sha256} cannot be had:\\n  ${mirror.url}/.*mismatch.*\\n  ${snapshots.url}/.*mismatch`,
      "i",
    ),
  );
  expect(await readdir(join(directory, "cache", "contrast-runtime", "programs"))).toEqual([]);
});

test("without Debian's programs, as on macOS, the files are the same, and other bytes are as little used", async () => {
  vi.stubGlobal("process", Object.create(process, { platform: { value: "darwin" } }));
  const server = await archive(bytes);
  const files = await fetchFrom([server.url]);
  expect(await readFile(join(files, "usr", "file"), "utf8")).toBe("the right file");
  expect(await readdir(files)).toEqual(["usr"]);
  pinned.sha256 = sha256("another");
  await expect(fetchFrom([server.url])).rejects.toThrow(
    /thing 1\.0\+b1 .* cannot be had:\n {2}http:.* has the SHA-256/,
  );
  pinned.sha256 = sha256("no package");
  await expect(fetchFrom([(await archive(Buffer.from("no package"))).url])).rejects.toThrow("is no Debian package");
});

test("packages are looked for at this machine's mirror, then in Debian's own archive at the time of the pin", async () => {
  const places = packagePlaces("20260131T120000Z");
  expect(await places("debian")).toEqual([
    expect.stringMatching(/\/debian$/),
    "https://snapshot.debian.org/archive/debian/20260131T120000Z",
  ]);
  expect(await places("debian-security")).toEqual([
    expect.stringMatching(/\/debian-security$/),
    "https://snapshot.debian.org/archive/debian-security/20260131T120000Z",
  ]);
});
