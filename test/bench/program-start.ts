// What it costs to start this program instead of an empty one, under the same engine: everything that index.ts imports is
// loaded, and nothing is registered.
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { engineProject } from "../engine/harness.ts";
import type { Benchmark } from "./measure.ts";

const rounds = 10;
const clone = resolve(import.meta.dirname, "..", "..");

export async function programStartBenchmarks(): Promise<Benchmark[]> {
  const modules = [...readFileSync(join(clone, "index.ts"), "utf8").matchAll(/from "\.\/(.+?)"/g)].map(
    ([, path = ""]) => path,
  );
  const empty = 'import "@pulumi/pulumi";\n';
  const programs = [empty, modules.map((path) => `import ${JSON.stringify(join(clone, path))};\n`).join("")];
  const projects = await Promise.all(programs.map((program) => engineProject({ program })));
  try {
    const times = projects.map((): number[] => []);
    for (let round = 0; round <= rounds; round += 1) {
      for (const [index, project] of projects.entries()) {
        const begin = performance.now();
        await project.mustWork(project.preview());
        // The first round fills the disk's cache.
        if (round > 0) times[index]?.push(performance.now() - begin);
      }
    }
    const [reference = Number.NaN, ours = Number.NaN] = times.map((each) => each.sort((a, b) => a - b)[rounds / 2]);
    return [
      {
        name: "start of the program under the engine",
        ours,
        reference: { name: "of an empty program", time: reference },
        limit: 1.3,
        ok: ours / reference <= 1.3,
      },
    ];
  } finally {
    for (const project of projects) await project.remove();
  }
}
