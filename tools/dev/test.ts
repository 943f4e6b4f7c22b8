// npm test, npm run test:unit and so on: runs the checks and the layers of tests, and counts results.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "node:util";
import { Argument } from "@commander-js/extra-typings";
import { Refusal } from "../../runtime/refusal.ts";
import { exitWith, run, Verb } from "../cli/command.ts";
import { packageRoot } from "../files/project.ts";

const layers = ["lint", "unit", "engine", "cluster"] as const;
type Layer = (typeof layers)[number];
const onLinux = process.platform === "linux";
/** Each layer's Vitest projects. */
const projects = {
  lint: [],
  unit: onLinux ? ["unit", "host"] : ["unit"],
  engine: ["engine"],
  cluster: ["machine", "cluster"],
};

interface Count {
  passed: number;
  failed: number;
  /** Tests that did not run: they are never counted as passed, and fail the run. */
  skipped: number;
  /** What this machine could not judge, for the layer's line. */
  missing?: string;
}

const runNode = (program: string, args: string[]): boolean =>
  spawnSync(process.execPath, [join(packageRoot, "node_modules", program), ...args], {
    cwd: packageRoot,
    stdio: "inherit",
  }).status === 0;

async function lint(): Promise<Count> {
  const results = [runNode("@biomejs/biome/bin/biome", ["check", "."]), runNode("typescript/bin/tsc", ["--noEmit"])];
  const judged = onLinux && process.arch === "x64";
  if (judged) results.push(await shellScripts());
  return {
    passed: results.filter(Boolean).length,
    failed: results.filter((ok) => !ok).length,
    skipped: 0,
    ...(!judged && { missing: "shell scripts are not judged: shellcheck is brought along for Linux on x86-64 only" }),
  };
}

/** Where Linux lacks something to get shellcheck with, that is a failure, too. */
async function shellScripts(): Promise<boolean> {
  try {
    const { shellScriptsPass } = await import("./shellcheck.ts");
    return await shellScriptsPass();
  } catch (error) {
    console.error(`Shell scripts cannot be judged: ${error instanceof Refusal ? error.message : inspect(error)}`);
    return false;
  }
}

function vitest(layer: Layer, args: string[]): Count {
  const report = join(packageRoot, ".local", `test-${layer}.json`);
  mkdirSync(join(packageRoot, ".local"), { recursive: true });
  rmSync(report, { force: true });
  const ok = runNode("vitest/vitest.mjs", [
    "run",
    ...projects[layer].flatMap((project) => ["--project", project]),
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
    ...args,
  ]);
  let counts: { numPassedTests: number; numFailedTests: number; numPendingTests: number };
  try {
    counts = JSON.parse(readFileSync(report, "utf8"));
  } catch {
    return { passed: 0, failed: 1, skipped: 0 };
  }
  const { numPassedTests: passed, numFailedTests: failed, numPendingTests: skipped } = counts;
  return {
    passed,
    // A file that does not load, or an unhandled rejection, fails the run without a failed test.
    failed: !ok && failed === 0 ? 1 : failed,
    skipped,
    ...(layer === "unit" && !onLinux && { missing: "the tests that need a Linux host did not run" }),
  };
}

/** @returns the exit code */
async function runLayers(chosen: readonly Layer[], vitestArguments: string[]): Promise<number> {
  const wanted = chosen.length > 0 ? layers.filter((layer) => chosen.includes(layer)) : layers;
  if (!onLinux && wanted.some((layer) => layer === "engine" || layer === "cluster"))
    throw new Refusal(
      "usage",
      "The engine and cluster tests need Linux; npm run lint and npm run test:unit run everywhere.",
    );
  if (wanted.includes("cluster") && process.getuid?.() !== 0)
    throw new Refusal(
      "usage",
      "Cluster tests create network namespaces, mounts and machines: run them as root, or run only the other layers (npm run lint, test:unit, test:engine).",
    );
  const total: Count = { passed: 0, failed: 0, skipped: 0 };
  const lines: string[] = [];
  for (const layer of wanted) {
    const started = Date.now();
    const count = layer === "lint" ? await lint() : vitest(layer, vitestArguments);
    total.passed += count.passed;
    total.failed += count.failed;
    total.skipped += count.skipped;
    lines.push(
      `${layer.padEnd(8)} ${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped in ${Math.round((Date.now() - started) / 1000)} s${count.missing === undefined ? "" : `; ${count.missing}`}`,
    );
  }
  console.log(`\n${lines.join("\n")}`);
  console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  return total.failed + total.skipped > 0 || total.passed === 0 ? 1 : 0;
}

const words = process.argv.slice(2);
const [own, vitestArguments] = words.includes("--")
  ? [words.slice(0, words.indexOf("--")), words.slice(words.indexOf("--") + 1)]
  : [words, []];
const script = new Verb("npm test --")
  .description(
    "Runs the checks and the layers of tests, cheapest first, and counts results. Tests that are skipped fail.",
  )
  .usage("[layers...] [-- what Vitest takes]")
  .addArgument(new Argument("[layers...]", "which (default: all)").choices(layers))
  .action(async (chosen) => exitWith(await runLayers(chosen, vitestArguments)));
process.exitCode = await run(script, own);
