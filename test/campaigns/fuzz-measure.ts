// fuzz-measure.ts [SECONDS PER READER, default 60] [READER]: damages good files until the time is up. A reader may refuse
// a file, with a Refusal; it may not crash, take longer than a second for a file, or keep more than four times its size.
import fc from "fast-check";
import { Refusal } from "../../node-installer/runtime/refusal.ts";
import { mutations, readers } from "../unit/measure/readers.ts";

const [seconds = "60", only] = process.argv.slice(2);
const slowest = 1000;
/** What the interpreter itself takes between two collections of garbage, whatever it reads. */
const allowance = 64 << 20;
let failed = false;

for (const [name, { sample, read }] of Object.entries(readers)) {
  if (only !== undefined && name !== only) continue;
  let runs = 0;
  let refused = 0;
  let longest = 0;
  globalThis.gc?.();
  const before = memory();
  let most = 0;
  const property = fc.property(mutations(sample), (bytes) => {
    const begin = performance.now();
    runs += 1;
    try {
      read(bytes);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      refused += 1;
    }
    const took = performance.now() - begin;
    longest = Math.max(longest, took);
    most = Math.max(most, memory() - before);
    if (took > slowest) throw new Error(`took ${took.toFixed(0)} ms for ${bytes.length} bytes`);
  });
  const result = fc.check(property, {
    numRuns: Number.POSITIVE_INFINITY,
    interruptAfterTimeLimit: Number(seconds) * 1000,
    endOnFailure: true,
  });
  const wrong = result.failed && !result.interrupted;
  const tooMuch = most > 4 * sample.length + allowance;
  failed ||= wrong || tooMuch;
  const figures = `${runs} files, ${refused} refused, longest ${longest.toFixed(1)} ms, at most ${(most / 2 ** 20).toFixed(1)} MiB for ${sample.length} bytes`;
  console.log(`${wrong || tooMuch ? "FAILED" : "ok    "} ${name}: ${figures}`);
  if (wrong) console.log(fc.defaultReportMessage(result));
}
process.exitCode = failed ? 1 : 0;

function memory(): number {
  const { heapUsed, arrayBuffers, external } = process.memoryUsage();
  return heapUsed + arrayBuffers + external;
}
