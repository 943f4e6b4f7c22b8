import { createHash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { mkdir, open, readFile, rename, rm, stat, statfs, writeFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { basename, join } from "node:path";
import * as z from "zod";
import { Refusal } from "../../runtime/refusal.ts";
import { withLock } from "../files/mutex.ts";
import { type Progress, whileWaiting } from "../process/progress.ts";
import { cacheDirectory } from "../programs/cache.ts";
import { connectionProblem, discard, send } from "./client.ts";

export interface Download {
  url: string;
  /** Hex; what the whole file must have. */
  sha256: string;
  /** Bytes, where they are known: a server that sends more is not listened to. */
  size?: number;
  headers?: Record<string, string>;
  ca?: string | undefined;
  /** There is another way to what it holds: a server that says nothing for five seconds is given up, without a word. */
  dispensable?: boolean;
  /** Where downloads are kept; by default in the cache. */
  directory?: string;
}

/** Beside an unfinished file: which version of the resource its bytes are of. */
const partSchema = z.object({ url: z.string(), validator: z.string().optional() });
/** How often a connection that breaks off is taken up again, counted anew whenever bytes arrived. */
const attempts = 4;
const shortSilenceMs = 5_000;
/** A server that says these may be well again in a moment. */
const transient = [429, 500, 502, 503, 504];
const megabytes = (bytes: number) => (bytes / 1e6).toFixed(0);

/**
 * The file of this digest, downloaded unless the cache has it. What is there of an unfinished download is kept and
 * continued, in this run and the next; whatever the server sends, only a file with the right digest gets its name.
 *
 * @throws Refusal naming the URL, what happened and what to do
 */
export async function download(wanted: Download, progress: Progress): Promise<string> {
  const directory = wanted.directory ?? join(cacheDirectory(), "downloads");
  const file = join(directory, `sha256-${wanted.sha256}`);
  const waiting = (other: string) => progress(`Waiting for ${other}, which is downloading ${wanted.url}.`);
  await mkdir(directory, { recursive: true });
  return await withLock(`download ${file}`, `process ${process.pid}`, waiting, async () => {
    if (existsSync(file)) return file;
    await fetchTo(`${file}.part`, wanted, progress);
    await verify(`${file}.part`, wanted);
    await rename(`${file}.part`, file);
    await rm(`${file}.part.json`, { force: true });
    return file;
  });
}

async function fetchTo(part: string, wanted: Download, progress: Progress): Promise<void> {
  const begin = await sizeOf(part);
  for (let failures = 0; ; ) {
    const before = await sizeOf(part);
    try {
      if (await fetchRest(part, before, wanted, progress)) return;
      throw new Error("the connection ended before the file did");
    } catch (error) {
      if (error instanceof Refusal) throw error;
      const size = await sizeOf(part);
      failures = size > before ? 1 : failures + 1;
      if (failures < (wanted.dispensable && size === begin ? 1 : attempts)) {
        progress(`  interrupted: ${connectionProblem(error)}; continuing …`);
        await new Promise((wake) => setTimeout(wake, 200 * 2 ** failures));
        continue;
      }
      throw new Refusal(
        "download-failed",
        `${wanted.url} cannot be downloaded: ${connectionProblem(error)}. Check the network and the proxy settings; the same command continues where it stopped (${megabytes(await sizeOf(part))} MB are here).`,
        { cause: error },
      );
    }
  }
}

/** Asks for what is missing and appends it; true when the file is as long as the server says. */
async function fetchRest(part: string, have: number, wanted: Download, progress: Progress): Promise<boolean> {
  const { url, ca, headers } = wanted;
  const silenceMs = wanted.dispensable ? shortSilenceMs : undefined;
  const validator = await validatorOf(part, url);
  const resume = have > 0 ? { range: `bytes=${have}-`, ...(validator ? { "if-range": validator } : {}) } : {};
  const response = await send({ method: "GET", url: new URL(url), headers: { ...headers, ...resume }, ca, silenceMs });
  const { from, total } = placeOf(response, have, url);
  if (from === undefined) {
    response.destroy();
    if (have === 0)
      throw new Refusal(
        "download-refused",
        `${url} cannot be downloaded: the server answered ${response.statusCode} to a request for the whole file. Name another URL.`,
      );
    // What is here is not the start of what the server has now.
    await rm(part, { force: true });
    return await fetchRest(part, 0, wanted, progress);
  }
  if (wanted.size !== undefined && (total ?? wanted.size) !== wanted.size) {
    response.destroy();
    throw new Refusal("digest-mismatch", `${url} has ${total} bytes, but ${wanted.size} were expected.`);
  }
  if (total !== undefined) await requireRoom(part, total - from, url);
  const etag = response.headers.etag;
  const strong = etag && !etag.startsWith("W/") ? etag : response.headers["last-modified"];
  await writeFile(`${part}.json`, JSON.stringify({ url, ...(strong ? { validator: strong } : {}) }));
  const size = await append(part, from, response, total ?? wanted.size, progress, basename(new URL(url).pathname));
  return total === undefined || size >= total;
}

/** Where the response's bytes belong; no `from`: start again. */
function placeOf(response: IncomingMessage, have: number, url: string): { from?: number; total?: number } {
  const status = response.statusCode ?? 0;
  if (status === 200) {
    const length = Number(response.headers["content-length"]);
    return { from: 0, ...(Number.isFinite(length) ? { total: length } : {}) };
  }
  const [, start, size] = /^bytes (?:(\d+)-\d+|\*)\/(\d+)$/.exec(response.headers["content-range"] ?? "") ?? [];
  if (status === 206 && Number(start) === have) return { from: have, ...(size ? { total: Number(size) } : {}) };
  // All bytes are here already: the digest decides whether they are the right ones.
  if (status === 416 && Number(size) === have) return { from: have, total: have };
  if (status === 206 || status === 416) return {};
  discard(response);
  if (transient.includes(status)) throw new Error(`the server answered ${status}`);
  const advice =
    status === 404 || status === 410
      ? "Check the version and the URL."
      : status === 401 || status === 403
        ? "The server wants a login, or does not allow it."
        : "Try again later, or name another URL.";
  throw new Refusal("download-refused", `${url} cannot be downloaded: the server answered ${status}. ${advice}`);
}

async function append(
  part: string,
  from: number,
  response: IncomingMessage,
  total: number | undefined,
  progress: Progress,
  name: string,
): Promise<number> {
  const handle = await open(part, from === 0 ? "w" : "r+");
  let at = from;
  const line = () => progress(`  ${name}: ${megabytes(at)}${total ? ` of ${megabytes(total)}` : ""} MB`);
  try {
    if (response.statusCode === 416) discard(response);
    else
      await whileWaiting(5, line, async () => {
        for await (const chunk of response as AsyncIterable<Buffer>) {
          await handle.write(chunk, 0, chunk.length, at);
          at += chunk.length;
          if (total !== undefined && at > total) break;
        }
      });
    return at;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    throw new Refusal(
      "disk-full",
      `The disk is full at ${part}. Make room there and run the same command: it continues where it stopped.`,
    );
  } finally {
    await handle.close();
  }
}

async function requireRoom(part: string, missing: number, url: string): Promise<void> {
  const { bavail, bsize } = await statfs(join(part, ".."));
  if (bavail * bsize >= missing) return;
  throw new Refusal(
    "disk-full",
    `${url} needs ${megabytes(missing)} MB more at ${join(part, "..")}, where ${megabytes(bavail * bsize)} MB are free. Make room there, or set XDG_CACHE_HOME to a larger disk.`,
  );
}

async function verify(part: string, { url, sha256 }: Download): Promise<void> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(part, { highWaterMark: 1 << 20 })) hash.update(chunk);
  const digest = hash.digest("hex");
  if (digest === sha256) return;
  await rm(part, { force: true });
  await rm(`${part}.json`, { force: true });
  throw new Refusal(
    "digest-mismatch",
    `${url} has the SHA-256 ${digest}, but ${sha256} was expected. The download is deleted. Either it was damaged on its way (run the command again), or the server's file or the expected digest is a wrong one: do not use it before you know which.`,
  );
}

async function validatorOf(part: string, url: string): Promise<string | undefined> {
  try {
    const known = partSchema.parse(JSON.parse(await readFile(`${part}.json`, "utf8")));
    return known.url === url ? known.validator : undefined;
  } catch {
    return undefined;
  }
}

const sizeOf = async (file: string): Promise<number> => (await stat(file).catch(() => undefined))?.size ?? 0;
