// The fleet plan of a thousand bundles of ten kinds of nodes compared with that of ten bundles, read from disk as the
// command does.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BundleText, planFleet } from "../../review/fleet-plan/plan.ts";
import { adminsFile } from "../fakes/memory-node.ts";
import { bundleOf, likeness, specOf } from "../unit/review/bundles.ts";
import type { Benchmark } from "./measure.ts";

const rounds = 10;

export async function fleetPlanBenchmarks(): Promise<Benchmark[]> {
  const spec = specOf("00000001", "00000002");
  const before = specOf("00000001");
  const kinds: BundleText[] = [];
  // Half of the kinds already have one of the runtimes; each kind has its own file, as long as real ones.
  for (let number = 0; number < 10; number += 1) {
    const file = `# kind ${number}\n${`# ${"-".repeat(78)}\n`.repeat(300)}${adminsFile}`;
    kinds.push(await bundleOf(number % 2 === 0 ? { file } : { file, installed: before }));
  }
  const directory = mkdtempSync(join(tmpdir(), "fleet-bench-"));
  try {
    const bundles = Array.from({ length: 1_000 }, (_, number) =>
      likeness(kinds[number % 10] ?? { file: "", text: "" }, number),
    );
    for (const { file, text } of bundles) writeFileSync(join(directory, file), text);
    const names = readdirSync(directory);
    const read = function* (wanted: string[]): Generator<BundleText> {
      for (const name of wanted) yield { file: name, text: readFileSync(join(directory, name), "utf8") };
    };
    const ten = Array.from({ length: 10 }, (_, number) => `node-${number}.json`);
    const times: [number[], number[]] = [[], []];
    for (let round = 0; round <= rounds; round += 1) {
      for (const [index, wanted] of [names, ten].entries()) {
        const begin = performance.now();
        const plan = await planFleet(spec, read(wanted));
        if (plan.nodes !== wanted.length) throw new Error("a bundle is missing from the plan");
        // The first round includes compilation.
        if (round > 0) times[index]?.push(performance.now() - begin);
      }
    }
    const [ours = Number.NaN, reference = Number.NaN] = times.map((each) => each.sort((a, b) => a - b)[rounds / 2]);
    const kilobytes = Math.round(bundles.reduce((sum, { text }) => sum + text.length, 0) / bundles.length / 1024);
    return [
      {
        name: `fleet plan of 1 000 bundles of ten kinds of node (${kilobytes} KiB each)`,
        ours,
        reference: { name: "of ten bundles", time: reference },
        limit: 10,
        ok: ours / reference <= 10,
      },
    ];
  } finally {
    rmSync(directory, { recursive: true });
  }
}
