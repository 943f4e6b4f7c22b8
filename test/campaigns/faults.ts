// faults.ts [--every N] [--node NAME] [--change NAME]: every fault at every call of the installer, on every kind of node and
// for every kind of change, and pairs of faults; in memory, so that it runs anywhere with sh. All of it takes hours: with
// --every 10, each tenth trial is made. NAME is a part of the name. Ends with 1 if a trial fails.
import { parseArgs } from "node:util";
import { nodeShapes } from "../fakes/node-shapes.ts";
import { changes } from "../fault-trials/changes.ts";
import { tryOut } from "../fault-trials/selection.ts";

const { values } = parseArgs({
  options: {
    every: { type: "string", default: "1" },
    node: { type: "string", default: "" },
    change: { type: "string", default: "" },
  },
});
const every = Number(values.every);
let [trials, failures] = [0, 0];
for (const shape of nodeShapes.filter(({ name }) => name.includes(values.node))) {
  for (const change of changes.filter(({ name }) => name.includes(values.change))) {
    const outcome = await tryOut(shape, change, { basic: every, other: every, twice: 20 * every });
    for (const failure of outcome.failures) console.error(`FAILED  ${failure}`);
    console.log(`${shape.name}, ${change.name}: ${outcome.trials} trials, ${outcome.failures.length} failures`);
    trials += outcome.trials;
    failures += outcome.failures.length;
  }
}
console.log(`${trials} trials, ${failures} failures`);
process.exitCode = failures === 0 ? 0 : 1;
