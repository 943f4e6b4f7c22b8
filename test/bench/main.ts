import { runScript } from "../../tools/dev/script.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { fleetPlanBenchmarks } from "./fleet-plan.ts";
import { type Benchmark, describeBenchmark, measureBenchmarks } from "./measure.ts";
import { nodeBenchmarks } from "./node.ts";
import { payloadBenchmarks } from "./payload.ts";
import { policyBenchmarks } from "./policy.ts";
import { programBenchmarks } from "./program.ts";
import { workloadBenchmarks } from "./workload.ts";

const suites: Record<string, () => Promise<Benchmark[]>> = {
  measurements: () => measureBenchmarks(toStderr),
  "the installer's copying": () => payloadBenchmarks(),
  "the installer on a node": () => nodeBenchmarks(),
  "the fleet plan": () => fleetPlanBenchmarks(),
  workloads: async () => [...workloadBenchmarks(), ...(await policyBenchmarks())],
  program: () => programBenchmarks(toStderr),
};

async function bench(): Promise<number> {
  let broken = 0;
  for (const [name, run] of Object.entries(suites)) {
    console.log(`\n${name}`);
    for (const benchmark of await run()) {
      console.log(describeBenchmark(benchmark));
      if (!benchmark.ok) broken += 1;
    }
  }
  return broken > 0 ? 1 : 0;
}

await runScript(
  "npm run bench",
  "Measures each promise about speed, as a ratio to a reference in the same run; fails if one is broken.",
  bench,
);
