// fuzz-bundles.ts [SECONDS, default 60]: damages good bundles until the time is up. Each is an outcome of its node; none
// may end the plan with an error, nor take longer than five seconds.
import fc from "fast-check";
import { planFailed, planFleet } from "../../review/fleet-plan.ts";
import { bundleOf, likeness, specOf } from "../unit/review/bundles.ts";

const seconds = Number(process.argv[2] ?? 60);
const slowest = 5_000;
const spec = specOf("00000001");
const samples = [await bundleOf({}), await bundleOf({ installed: spec }), await bundleOf({ file: "a = [1]\n" })];
const pieces = [
  "{",
  "}",
  "[",
  '"',
  ":",
  ",",
  "null",
  "-1",
  "1e999",
  "__proto__",
  "constructor",
  "..",
  "*",
  "\\n",
  "\\u0000",
  "true",
];

const edit = fc.record({
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  length: fc.nat(40),
  piece: fc.oneof(fc.constantFrom(...pieces), fc.string({ maxLength: 20 })),
  times: fc.oneof({ weight: 9, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.nat(20_000) }),
});
const damaged = fc
  .tuple(fc.constantFrom(...samples), fc.array(edit, { minLength: 1, maxLength: 4 }))
  .map(([sample, edits]) =>
    edits.reduce((text, { at, length, piece, times }) => {
      const start = Math.floor(at * text.length);
      return text.slice(0, start) + piece.repeat(times) + text.slice(start + length);
    }, sample.text),
  );

const [good] = samples;
if (good === undefined) throw new Error("there is a sample");
const outcomes = new Map<string, number>();
let [runs, longest] = [0, 0];
const property = fc.asyncProperty(damaged, async (text) => {
  runs += 1;
  const begin = performance.now();
  const plan = await planFleet(spec, [{ file: "node-1.json", text }, likeness(good, 2)]);
  const took = performance.now() - begin;
  longest = Math.max(longest, took);
  if (took > slowest) throw new Error(`took ${took.toFixed(0)} ms for ${text.length} characters`);
  for (const { outcome, code, reason } of plan.outcomes) {
    if (code === planFailed) throw new Error(reason);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  if (!plan.outcomes.some(({ outcome, nodes }) => outcome === "restart" && nodes.includes("node-2"))) {
    throw new Error("the other node has another plan");
  }
});
const result = await fc.check(property, {
  numRuns: Number.POSITIVE_INFINITY,
  interruptAfterTimeLimit: seconds * 1000,
  endOnFailure: true,
});
const wrong = result.failed && !result.interrupted;
console.log(
  `${wrong ? "FAILED" : "ok    "} ${runs} bundles, longest ${longest.toFixed(0)} ms: ${[...outcomes].map(([name, number]) => `${number} ${name}`).join(", ")}`,
);
if (wrong) console.log(fc.defaultReportMessage(result));
process.exitCode = wrong ? 1 : 0;
