import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { download } from "../../../../tools/http/download.ts";

const content = randomBytes(6_000_000);
const digest = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");
const sha256 = digest(content);
const etag = '"v1"';

type Handler = (request: IncomingMessage, response: ServerResponse, start: number) => void;
let directory: string;
let server: Server;
let url: string;
let handler: Handler;
/** The Range header of every request. */
let ranges: (string | undefined)[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "download-test-"));
  ranges = [];
  server = createServer((request, response) => {
    ranges.push(request.headers.range);
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    handler(request, response, start);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/archive.tar`;
});
afterEach(async () => {
  server.close();
  server.closeAllConnections();
  await rm(directory, { recursive: true });
});

/** Serves the whole file, or the range that is asked for, as a server should. */
const serve: Handler = (request, response, start) => {
  if (request.headers.range && request.headers["if-range"] === etag) {
    const headers = { "content-range": `bytes ${start}-${content.length - 1}/${content.length}`, etag };
    response.writeHead(206, { ...headers, "content-length": content.length - start }).end(content.subarray(start));
  } else response.writeHead(200, { "content-length": content.length, etag }).end(content);
};

/** Promises everything and breaks off after `bytes`. */
const breakOff =
  (bytes: number): Handler =>
  (request, response, start) => {
    const range = request.headers.range !== undefined;
    const headers = range ? { "content-range": `bytes ${start}-${content.length - 1}/${content.length}` } : {};
    response.writeHead(range ? 206 : 200, { ...headers, "content-length": content.length - start, etag });
    response.write(content.subarray(start, start + bytes), () => response.destroy());
  };

const fetchIt = (digest = sha256) => download({ url, sha256: digest, directory }, () => {});

test("a file is downloaded once, and only the right bytes get its name", async () => {
  handler = serve;
  const file = await fetchIt();
  expect(digest(await readFile(file))).toBe(sha256);
  expect(await fetchIt()).toBe(file);
  expect(ranges).toHaveLength(1);
  expect(await readdir(directory)).toEqual([`sha256-${sha256}`]);
});

test("more bytes than a registry's manifest says are not taken, announced or not", async () => {
  const size = 1_000_000;
  handler = serve;
  await expect(download({ url, sha256, size, directory }, () => {})).rejects.toThrow(/6000000 bytes, but 1000000 were/);
  let sent = 0;
  handler = (_, response) => {
    const more = () => {
      if (response.destroyed) return;
      sent += 1 << 16;
      response.write(Buffer.alloc(1 << 16), () => setImmediate(more));
    };
    more();
  };
  await expect(download({ url, sha256, size, directory }, () => {})).rejects.toThrow(/was expected/);
  expect(sent).toBeLessThan(100_000_000);
  expect(await readdir(directory)).toEqual([]);
});

test("a connection that breaks off is continued where it stopped, in the same run", async () => {
  const breaking = [breakOff(2_000_000), breakOff(2_000_000), serve];
  handler = (...args) => breaking.shift()?.(...args);
  expect(digest(await readFile(await fetchIt()))).toBe(sha256);
  const starts = ranges.map((range) => Number(/\d+/.exec(range ?? "0")?.[0]));
  expect(starts).toHaveLength(3);
  expect(starts[1]).toBeGreaterThan(0);
  expect(starts[2]).toBeGreaterThan(starts[1] ?? 0);
});

test("a server that keeps breaking off ends the run; the next run continues", async () => {
  handler = (_request, response) => void response.destroy();
  await writeFile(join(directory, `sha256-${sha256}.part`), content.subarray(0, 200_000));
  await writeFile(join(directory, `sha256-${sha256}.part.json`), JSON.stringify({ url, validator: etag }));
  await expect(fetchIt()).rejects.toThrow(
    /cannot be downloaded: .*the same command continues where it stopped \(0 MB are here\)/,
  );
  handler = serve;
  ranges = [];
  expect(digest(await readFile(await fetchIt()))).toBe(sha256);
  expect(ranges).toEqual(["bytes=200000-"]);
});

test("when the server's file changed meanwhile, what is there is thrown away", async () => {
  await writeFile(join(directory, `sha256-${sha256}.part`), Buffer.alloc(1000));
  await writeFile(join(directory, `sha256-${sha256}.part.json`), JSON.stringify({ url, validator: '"v0"' }));
  handler = serve;
  expect(digest(await readFile(await fetchIt()))).toBe(sha256);
});

test("a server without ranges is started over", async () => {
  await writeFile(join(directory, `sha256-${sha256}.part`), content.subarray(0, 1000));
  handler = (_request, response) => void response.writeHead(200, { "content-length": content.length }).end(content);
  expect(digest(await readFile(await fetchIt()))).toBe(sha256);
});

test("all bytes were there, but not yet checked", async () => {
  await writeFile(join(directory, `sha256-${sha256}.part`), content);
  handler = (_request, response) =>
    void response.writeHead(416, { "content-range": `bytes */${content.length}` }).end();
  expect(digest(await readFile(await fetchIt()))).toBe(sha256);
});

test("a wrong digest leaves nothing behind and says both digests", async () => {
  handler = serve;
  const wrong = "0".repeat(64);
  await expect(fetchIt(wrong)).rejects.toThrow(new RegExp(`has the SHA-256 ${sha256}, but ${wrong} was expected`));
  expect(await readdir(directory)).toEqual([]);
});

test("an end before the announced length is no file", async () => {
  // Without a length the end of the connection looks like the end of the file: only the digest tells.
  handler = (_request, response) => {
    response.writeHead(200);
    response.write(content.subarray(0, 5000), () => response.end());
  };
  await expect(fetchIt()).rejects.toThrow(/but [0-9a-f]{64} was expected/);
});

test.each([
  [404, /the server answered 404. Check the version and the URL/],
  [403, /the server answered 403. The server wants a login/],
])("status %i is said as it is", async (status, message) => {
  handler = (_request, response) => void response.writeHead(status).end("no");
  await expect(fetchIt()).rejects.toThrow(message);
});

test("a server that is busy is asked again", async () => {
  const answers: Handler[] = [(_request, response) => void response.writeHead(503).end("busy"), breakOff(2_000_000)];
  answers.push(...answers.slice(0, 1), serve);
  handler = (...args) => answers.shift()?.(...args);
  expect(digest(await readFile(await fetchIt()))).toBe(sha256);
  handler = (_request, response) => void response.writeHead(502).end();
  await expect(fetchIt("0".repeat(64))).rejects.toThrow("cannot be downloaded: the server answered 502. ");
});

test.each([206, 416])("a server that answers %i to everything is not asked forever", async (status) => {
  await writeFile(join(directory, `sha256-${sha256}.part`), content.subarray(0, 1000));
  handler = (_request, response) =>
    void response.writeHead(status, { "content-range": `bytes 7-8/${content.length}` }).end("no");
  await expect(fetchIt()).rejects.toThrow(`the server answered ${status} to a request for the whole file`);
  expect(ranges).toEqual(["bytes=1000-", undefined]);
});

test("redirects are followed, without handing the login to another server", async () => {
  const seen: (string | undefined)[] = [];
  const other = createServer((request, response) => {
    seen.push(request.headers.authorization);
    response.writeHead(200, { "content-length": content.length }).end(content);
  });
  other.listen(0, "127.0.0.1");
  await once(other, "listening");
  const target = `http://127.0.0.1:${(other.address() as AddressInfo).port}/blob`;
  handler = (request, response) => {
    seen.push(request.headers.authorization);
    response.writeHead(307, { location: target }).end();
  };
  try {
    await download({ url, sha256, directory, headers: { authorization: "Basic secret" } }, () => {});
    expect(seen).toEqual(["Basic secret", undefined]);
  } finally {
    other.close();
    other.closeAllConnections();
  }
});

test("two runs at once share one download", async () => {
  handler = serve;
  const files = await Promise.all([fetchIt(), fetchIt()]);
  expect(files[0]).toBe(files[1]);
  expect(ranges).toHaveLength(1);
});
