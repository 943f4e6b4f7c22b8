// fuzz-measure.ts [SECONDS PER READER, default 60] [READER]: damages good files until the time is up. A reader may refuse
// a file, with a Refusal; it may not crash, take longer than a second, or allocate more than four times the file's size.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { Refusal } from "../../runtime/refusal.ts";
import { mutations, readers } from "../unit/measure/fuzz-targets.ts";

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

const [seconds = "60", only] = process.argv.slice(2);
const slowest = 1000;
/** What even the smallest file needs: hash states, inflate's window, compiled code. */
const allowance = 1 << 20;
/** Collecting garbage takes longer than most reads, so memory is checked only once in so many reads. */
const memoryEvery = 32;
let failed = false;

for (const [name, { sample, read }] of Object.entries(readers)) {
  if (only !== undefined && name !== only) continue;
  let runs = 0;
  let refused = 0;
  let longest = 0;
  let most = 0;
  const property = fc.property(mutations(sample), (bytes) => {
    runs += 1;
    // The first reads also compile the reader.
    const weigh = runs > 100 && runs % memoryEvery === 0;
    if (weigh) collectGarbage();
    const before = weigh ? memory() : 0;
    const begin = performance.now();
    try {
      read(bytes);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      refused += 1;
    }
    const took = performance.now() - begin;
    const allocated = weigh ? memory() - before : 0;
    longest = Math.max(longest, took);
    most = Math.max(most, allocated);
    if (took > slowest) throw new Error(`took ${took.toFixed(0)} ms for ${bytes.length} bytes`);
    if (allocated > 4 * sample.length + allowance) throw new Error(`allocated ${allocated} bytes for ${bytes.length}`);
  });
  const result = fc.check(property, {
    numRuns: Number.POSITIVE_INFINITY,
    interruptAfterTimeLimit: Number(seconds) * 1000,
    endOnFailure: true,
  });
  const wrong = result.failed && !result.interrupted;
  failed ||= wrong;
  console.log(
    `${wrong ? "FAILED" : "ok    "} ${name}: ${runs} files, ${refused} refused, longest ${longest.toFixed(1)} ms, ` +
      `at most ${(most / 1024).toFixed(0)} KiB allocated for ${(sample.length / 1024).toFixed(0)} KiB`,
  );
  if (wrong) console.log(fc.defaultReportMessage(result));
}
process.exitCode = failed ? 1 : 0;

function memory(): number {
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
