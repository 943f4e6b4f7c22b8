import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { sha256 } from "../../../../runtime/canonical.ts";
import { archives, installEngine, pinned, readChecksums } from "../../../../tools/engine/install.ts";
import { engineVersion } from "../../../../tools/engine/versions.ts";

let server: Server;
let content: (path: string) => string;
let address: string;
let directory: string;

beforeEach(async () => {
  content = (path) => `content of ${path.split("/").at(-1)}`;
  server = createServer((request, response) => response.end(content(request.url ?? ""))).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  directory = mkdtempSync(join(tmpdir(), "install-"));
});
afterEach(() => {
  server.close();
  rmSync(directory, { recursive: true });
});

const quiet = () => {};
const wanted = () => archives(`${address}/downloads`, `${address}/releases`);

test("what two places agree on is pinned, one line for the engine and each plugin", async () => {
  const text = await pinned(wanted(), new Map(), quiet);
  const digests = readChecksums(text);
  expect([...digests.keys()]).toEqual(wanted().map(({ name }) => name));
  const engine = `pulumi-v${engineVersion}-linux-x64.tar.gz`;
  expect(digests.get(engine)).toBe(sha256(`content of ${engine}`));
});

test("what two places disagree on, or what changed since, is pinned by nobody", async () => {
  const before = readChecksums(await pinned(wanted(), new Map(), quiet));
  content = (path) => path;
  await expect(pinned(wanted(), new Map(), quiet)).rejects.toThrow("neither is pinned");
  content = () => "changed";
  await expect(pinned(wanted(), before, quiet)).rejects.toThrow("a released file does not change");
});

test("without a pinned digest nothing is downloaded, and another file is not unpacked", async () => {
  await expect(installEngine(wanted(), new Map(), directory, quiet)).rejects.toThrow('run "npm run engine -- --pin"');
  const wrong = new Map(wanted().map(({ name }) => [name, "0".repeat(64)]));
  await expect(installEngine(wanted(), wrong, directory, quiet)).rejects.toThrow(/SHA-256|sha256/i);
  expect(readdirSync(directory)).toEqual([]);
});

test("a line that is not sha256sum's is refused", () => {
  expect(() => readChecksums("abc  pulumi.tar.gz\n")).toThrow("is not a line of sha256sum");
});
