import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readSpec } from "../node-installer/install/read-spec.ts";
import { systemNamespace } from "../node-installer/kubernetes/names.ts";
import { Refusal } from "../node-installer/runtime/refusal.ts";
import type { InstallSpec } from "../node-installer/runtime/spec.ts";
import { differences, readApproved } from "../review/check.ts";
import { type BundleText, type FleetPlan, fleetSentence, outcomeSentence, planFleet } from "../review/fleet-plan.ts";
import { plannedNodes, plannedSpecs } from "../review/groups.ts";
import { count } from "../review/lines.ts";
import { renderMarkdown } from "../review/markdown.ts";
import { readPreview } from "../review/preview.ts";
import { canonical, summarize } from "../review/summary.ts";
import { parseOptions, required, runCommand, UsageError } from "./fleet/command-line.ts";
import { exitCodes } from "./fleet/follow.ts";

const usage = `Usage: contrast-runtime review COMMAND [options]

  summary --preview FILE [--bundles DIR] [--canonical FILE]
      Prints what a preview does, in Markdown. FILE is what "pulumi preview --json" printed; - reads standard input.
      --bundles adds the fleet plan; --canonical stores the form that is approved.
  check --approved FILE --preview FILE
      Compares a fresh preview with the approved form: exit code 1 and a sentence for each difference.
  fleet --bundles DIR (--preview FILE | --spec FILE...) [--json]
      What an install spec does to each node, by the installer's own plan.
  collect --output DIR [--namespace NAME]
      Fetches the nodes' bundles into DIR/GROUP/NODE.json. The cluster: KUBECONFIG_CONTENT, else kubectl's own rules.
  comment --body FILE
      Writes the file as the one comment of this pull request (GitHub Actions) or merge request (GitLab CI).

Bundles are in DIR/GROUP/*.json, or for a single spec in DIR/*.json.
Exit codes: 0 done, 1 failed or different, 2 wrong usage, 4 no cluster.`;

const commands: Record<string, (args: string[]) => Promise<number>> = { summary, check, fleet, collect, comment };

/** Returns the exit code. */
export function main([command = "", ...args]: string[]): Promise<number> {
  return runCommand([command, ...args], usage, async () => {
    const run = Object.hasOwn(commands, command) ? commands[command] : undefined;
    if (run === undefined) throw new UsageError(`There is no command "${command}".`);
    return run(args);
  });
}

async function summary(args: string[]): Promise<number> {
  const values = parseOptions(args, {
    preview: { type: "string" },
    bundles: { type: "string" },
    canonical: { type: "string" },
  });
  const preview = readPreview(await readText(required(values, "preview")));
  const fleets =
    values.bundles === undefined ? [] : await planFleets(plannedSpecs(preview), values.bundles, plannedNodes(preview));
  const made = summarize(preview, fleets);
  if (values.canonical !== undefined) await writeFile(values.canonical, canonical(made));
  process.stdout.write(renderMarkdown(made));
  return made.errors.length > 0 ? exitCodes.failed : exitCodes.done;
}

async function check(args: string[]): Promise<number> {
  const values = parseOptions(args, { approved: { type: "string" }, preview: { type: "string" } });
  const file = required(values, "approved");
  const approved = readApproved(await readText(file), file);
  const found = differences(approved, summarize(readPreview(await readText(required(values, "preview")))));
  for (const sentence of found) console.error(sentence);
  if (found.length === 0) console.log("The preview is the approved one.");
  else console.error("Nothing is changed: preview again on a pull request and have that approved.");
  return found.length === 0 ? exitCodes.done : exitCodes.failed;
}

async function fleet(args: string[]): Promise<number> {
  const values = parseOptions(args, {
    bundles: { type: "string" },
    preview: { type: "string" },
    spec: { type: "string", multiple: true },
    json: { type: "boolean", default: false },
  });
  if ((values.preview === undefined) === (values.spec === undefined)) {
    throw new UsageError("Give either --preview or --spec.");
  }
  const bundles = required(values, "bundles");
  const planned = async (file: string) => {
    const preview = readPreview(await readText(file));
    return await planFleets(plannedSpecs(preview), bundles, plannedNodes(preview));
  };
  const given = async (files: string[]) =>
    await planFleets(await Promise.all(files.map(async (file) => (await readSpec(file)).spec)), bundles);
  const plans = values.preview === undefined ? await given(values.spec ?? []) : await planned(values.preview);
  if (values.json) console.log(JSON.stringify(plans, null, 2));
  for (const plan of values.json ? [] : plans) {
    console.log(`${plan.group}: ${fleetSentence(plan).replaceAll("`", "")}`);
    for (const outcome of plan.outcomes) console.log(`  ${outcomeSentence(outcome).replaceAll("`", "")}`);
  }
  if (plans.length === 0) console.error("The preview changes no install spec: no node has anything to do.");
  return plans.some(({ outcomes }) => outcomes.some(({ outcome }) => outcome === "refused"))
    ? exitCodes.failed
    : exitCodes.done;
}

async function collect(args: string[]): Promise<number> {
  const values = parseOptions(args, {
    output: { type: "string" },
    namespace: { type: "string", default: systemNamespace },
  });
  const output = required(values, "output");
  const [{ loadKubeConfig }, { collectBundles }] = await Promise.all([
    import("./fleet/client.ts"),
    import("../review/collect.ts"),
  ]);
  let [taken, missed] = [0, 0];
  const kubeconfig = await loadKubeConfig(process.env);
  await collectBundles(kubeconfig, values.namespace, async ({ group, node, bundle, problem }) => {
    if (bundle === undefined) {
      missed += 1;
      console.error(`No bundle of node ${node} (group ${group}): ${problem}`);
      return;
    }
    await mkdir(join(output, group), { recursive: true });
    await writeFile(join(output, group, `${node}.json`), bundle, { mode: 0o600 });
    taken += 1;
  });
  console.log(`${count(taken, "bundle")} in ${output}.`);
  return missed === 0 ? exitCodes.done : exitCodes.failed;
}

async function comment(args: string[]): Promise<number> {
  const { forgeOf, postComment } = await import("../review/comment.ts");
  const body = await readText(required(parseOptions(args, { body: { type: "string" } }), "body"));
  console.log(`The comment was ${await postComment(forgeOf(process.env), body)}.`);
  return exitCodes.done;
}

/** A group that is new has no installers yet, and so no bundles. */
function planFleets(specs: InstallSpec[], directory: string, nodes?: Map<string, string[]>): Promise<FleetPlan[]> {
  const bundlesOf = (group: string) => {
    const own = join(directory, group);
    if (existsSync(own)) return bundlesIn(own);
    return specs.length === 1 || !existsSync(directory) ? bundlesIn(directory) : [];
  };
  return Promise.all(specs.map((spec) => planFleet(spec, bundlesOf(spec.group), nodes?.get(spec.group))));
}

/** One after the other, so that a thousand need no more memory than one. */
function* bundlesIn(directory: string): Generator<BundleText> {
  let names: string[];
  try {
    names = readdirSync(directory).filter((name) => name.endsWith(".json"));
  } catch (error) {
    throw new Refusal("no-bundles", `The bundles' directory ${directory} cannot be read: ${(error as Error).message}.`);
  }
  for (const name of names.sort()) {
    const file = join(directory, name);
    yield { file, text: readFileSync(file, "utf8") };
  }
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file === "-" ? "/dev/stdin" : file, "utf8");
  } catch (error) {
    throw new Refusal("unreadable", `${file} cannot be read: ${(error as Error).message}.`);
  }
}
