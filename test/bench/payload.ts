// Placing a payload of 1 GiB compared with cp, sync and sha256sum of the same files, as one file and as many; in one process,
// medians of ten.
import { execFileSync } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileDigest } from "../../node-installer/host/copy.ts";
import { createNodeHost } from "../../node-installer/host/node-host.ts";
import { placePayload } from "../../node-installer/install/payload.ts";
import { type RuntimeSpec, runtimeDirectory } from "../../runtime/spec.ts";
import type { Benchmark } from "./measure.ts";

const rounds = 10;
const limit = 0.65;
const handler = "contrast-cc-metal-qemu-snp-00000000";
const median = (times: number[]): number => times.toSorted((a, b) => a - b)[times.length >> 1] ?? 0;

async function timed(action: () => unknown): Promise<number> {
  const begin = performance.now();
  await action();
  return performance.now() - begin;
}

/** Bytes that no file system can compress or deduplicate. */
function writeRandom(path: string, bytes: number): void {
  mkdirSync(dirname(path), { recursive: true });
  const chunk = Buffer.alloc(Math.min(bytes, 1 << 24));
  const file = openSync(path, "w");
  for (let left = bytes; left > 0; left -= chunk.length) {
    randomFillSync(chunk);
    writeSync(file, chunk, 0, Math.min(left, chunk.length));
  }
  closeSync(file);
}

/** Sizes by path. */
type Payload = Record<string, number>;

/** As a Kata payload is: a rootfs image, other images, programs, and many small files. */
const manyFiles = (bytes: number): Payload => ({
  rootfs: bytes / 2,
  image: bytes / 4,
  kernel: bytes / 8,
  initrd: bytes / 16,
  shim: bytes / 32,
  ...Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`share/${index}`, bytes / 3200])),
});

async function compare(name: string, payload: Payload): Promise<Benchmark> {
  const directory = mkdtempSync(join(tmpdir(), "payload-bench-"));
  const [payloads, root, copy] = [join(directory, "payloads"), join(directory, "host"), join(directory, "copy")];
  const source = join(payloads, "payload");
  const files: RuntimeSpec["files"] = [];
  try {
    for (const [path, bytes] of Object.entries(payload)) {
      writeRandom(join(source, path), Math.floor(bytes));
      files.push({ role: "vmm-data", path, mode: "0644", ...(await fileDigest(join(source, path))) });
    }
    mkdirSync(root);
    const host = createNodeHost({ root });
    // What placing reads of a runtime.
    const runtime = { handler, payload: "payload", files } as unknown as RuntimeSpec;
    const plan = { runtime, missing: files, recorded: false, bytes: 0 };
    const each = (command: string) => `find "$2" -type f -exec ${command} {} + >/dev/null`;
    const commands = `cp -a "$1" "$2" && ${each("sync")} && ${each("sha256sum")}`;
    const [ours, theirs]: [number[], number[]] = [[], []];
    for (let round = 0; round < rounds; round += 1) {
      execFileSync("sync");
      ours.push(await timed(() => placePayload(host, plan, payloads)));
      rmSync(join(root, runtimeDirectory(handler)), { recursive: true });
      execFileSync("sync");
      theirs.push(await timed(() => execFileSync("sh", ["-c", commands, "sh", source, copy])));
      rmSync(copy, { recursive: true });
    }
    const [own, reference] = [median(ours), median(theirs)];
    return {
      name,
      ours: own,
      reference: { name: "cp -a + sync + sha256sum", time: reference },
      limit,
      ok: own <= limit * reference,
    };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

export async function payloadBenchmarks(bytes = 1 << 30): Promise<Benchmark[]> {
  const said = `${bytes >> 20} MiB: copied, verified, on disk`;
  return [
    await compare(`payload of one file of ${said}`, { rootfs: bytes }),
    await compare(`payload of 105 files of ${said}`, manyFiles(bytes)),
  ];
}

if (import.meta.main) console.log(await payloadBenchmarks(Number(process.argv[2] ?? 1024) << 20));
