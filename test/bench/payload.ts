// Copying a payload of 1 GiB compared with cp, sync and sha256sum of the same file; in one process, medians of ten.
import { execFileSync } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { copyVerified, fileDigest } from "../../node-installer/host/copy.ts";
import type { Benchmark } from "./measure.ts";

const rounds = 10;
const median = (times: number[]): number => times.toSorted((a, b) => a - b)[times.length >> 1] ?? 0;

async function timed(action: () => unknown): Promise<number> {
  const begin = performance.now();
  await action();
  return performance.now() - begin;
}

export async function payloadBenchmarks(bytes = 1 << 30): Promise<Benchmark[]> {
  const directory = mkdtempSync(join(tmpdir(), "payload-bench-"));
  const [source, target] = [join(directory, "source"), join(directory, "target")];
  try {
    // Bytes that no file system can compress or deduplicate.
    const chunk = randomFillSync(Buffer.alloc(1 << 24));
    const file = openSync(source, "w");
    for (let written = 0; written < bytes; written += chunk.length) {
      randomFillSync(chunk);
      writeSync(file, chunk);
    }
    closeSync(file);
    const { size, sha256 } = await fileDigest(source);
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let round = 0; round < rounds; round += 1) {
      execFileSync("sync");
      ours.push(await timed(() => copyVerified(source, target, { size, sha256, mode: 0o644 })));
      rmSync(target);
      execFileSync("sync");
      const commands = 'cp "$1" "$2" && sync "$2" && sha256sum "$2" >/dev/null';
      theirs.push(await timed(() => execFileSync("sh", ["-c", commands, "sh", source, target])));
      rmSync(target);
    }
    const [own, reference] = [median(ours), median(theirs)];
    return [
      {
        name: `payload of ${bytes >> 20} MiB: copied, verified, on disk`,
        ours: own,
        reference: { name: "cp + sync + sha256sum", time: reference },
        limit: 1,
        ok: own <= reference,
      },
    ];
  } finally {
    rmSync(directory, { recursive: true });
  }
}

if (import.meta.main) console.log(await payloadBenchmarks());
