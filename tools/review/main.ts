import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readSpec } from "../../node-installer/install/read-spec.ts";
import { differences, planDifferences } from "../../review/approval/compare.ts";
import { type Approved, canonical, readApproved, type Source } from "../../review/approval/form.ts";
import { type BundleText, type FleetPlan, planFleet } from "../../review/fleet-plan/plan.ts";
import { fleetSentence, outcomeSentence } from "../../review/fleet-plan/sentences.ts";
import { sourceOf } from "../../review/forge/source.ts";
import { readPreview } from "../../review/preview/preview.ts";
import { plannedNodes, plannedSpecs } from "../../review/summary/groups.ts";
import { renderMarkdown } from "../../review/summary/markdown.ts";
import { summarize } from "../../review/summary/summary.ts";
import { count, list } from "../../review/text.ts";
import { sha256 } from "../../runtime/canonical.ts";
import { systemNamespace } from "../../runtime/names.ts";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { InstallSpec } from "../../runtime/spec.ts";
import { parseOptions, required, runCommand, UsageError } from "../cli/options.ts";
import { exitCodes } from "../fleet/follow.ts";

const usage = `Usage: contrast-runtime review COMMAND [options]

  summary --preview FILE [--bundles DIR] [--canonical FILE] [--plan FILE --approved FILE]
      Prints what a preview does, in Markdown. FILE is what "pulumi preview --json" printed; - reads standard input.
      --bundles adds the fleet plan; --canonical stores the form that is approved. In a job of GitHub or GitLab it names
      the commit, the request and the run; with --plan the update plan that the same preview saved, and with --approved
      the request that was approved.
  check --approved FILE (--preview FILE | --plan FILE)
      Compares a fresh preview with the approved form, or an update plan with the form that names it, which must be of
      this job's commit and run: exit code 1 and a sentence for each difference.
  approval --stored NAME --form FILE
      In a job for a merged commit: looks up the request that it came from and its approval, and writes the form that its
      preview stored as NAME (GitHub: an artifact; GitLab: a path among the job's artifacts).
  release --approved FILE --environment NAME
      In a job that waited for an environment: looks up who let it go on, and that no update began by this plan before.
  fleet --bundles DIR (--preview FILE | --spec FILE...) [--json]
      What an install spec does to each node, by the installer's own plan.
  collect --output DIR [--namespace NAME]
      Fetches the nodes' bundles into DIR/GROUP/NODE.json. The cluster: KUBECONFIG_CONTENT, else kubectl's own rules.
  comment --body FILE
      Writes the file as the one comment of this pull request (GitHub Actions) or merge request (GitLab CI).

Bundles are in DIR/GROUP/*.json, or for a single spec in DIR/*.json.
Exit codes: 0 done, 1 failed or different, 2 wrong usage, 4 no cluster.`;

const commands: Record<string, (args: string[]) => Promise<number>> = {
  summary,
  check,
  approval,
  release,
  fleet,
  collect,
  comment,
};

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
    plan: { type: "string" },
    approved: { type: "string" },
  });
  const preview = readPreview(await readText(required(values, "preview")));
  const fleets =
    values.bundles === undefined ? [] : await planFleets(plannedSpecs(preview), values.bundles, plannedNodes(preview));
  const made = summarize(preview, fleets);
  const source = await sourceWith(values);
  const form = canonical(made, source);
  if (values.canonical !== undefined) await writeFile(values.canonical, form);
  process.stdout.write(renderMarkdown(made) + (source === undefined ? "" : originOf(source, form)));
  return made.errors.length > 0 ? exitCodes.failed : exitCodes.done;
}

/** The job's own, with the plan and the approved request. */
async function sourceWith(files: { plan?: string; approved?: string }): Promise<Source | undefined> {
  const source = sourceOf(process.env);
  if (source === undefined) return undefined;
  const request = files.approved === undefined ? undefined : (await approvedIn(files.approved)).source?.request;
  return {
    ...source,
    ...(request !== undefined && { request }),
    ...(files.plan !== undefined && { plan: sha256(await readBytes(files.plan)) }),
  };
}

/** The comment's last line: which run said so, and the digests by which what it said can be found again. */
function originOf({ commit, run, attempt, plan }: Source, form: string): string {
  const digests = [`this form has SHA-256 \`${sha256(form)}\``, ...(plan ? [`the plan \`${plan}\``] : [])];
  return `\n<sub>Of commit ${commit}, by run ${run} (${attempt}); ${list(digests)}.</sub>\n`;
}

async function check(args: string[]): Promise<number> {
  const values = parseOptions(args, {
    approved: { type: "string" },
    preview: { type: "string" },
    plan: { type: "string" },
  });
  if ((values.preview === undefined) === (values.plan === undefined)) {
    throw new UsageError("Give either --preview or --plan.");
  }
  const approved = await approvedIn(required(values, "approved"));
  const found =
    values.plan === undefined
      ? differences(approved, summarize(readPreview(await readText(required(values, "preview")))))
      : planDifferences(approved, sha256(await readBytes(values.plan)), sourceOf(process.env));
  for (const sentence of found) console.error(sentence);
  if (found.length === 0) console.log(`The ${values.plan === undefined ? "preview" : "plan"} is the approved one.`);
  else console.error("Nothing is changed: preview again on a pull request and have that approved.");
  return found.length === 0 ? exitCodes.done : exitCodes.failed;
}

async function approval(args: string[]): Promise<number> {
  const values = parseOptions(args, { stored: { type: "string" }, form: { type: "string" } });
  const [{ forgeOf }, { approvalOf }] = await Promise.all([
    import("../../review/forge/forge.ts"),
    import("../../review/forge/approval.ts"),
  ]);
  const [stored, file] = [required(values, "stored"), required(values, "form")];
  const forge = forgeOf(process.env);
  const [commit, branch] =
    forge.kind === "github" ? ["GITHUB_SHA", "GITHUB_REF_NAME"] : ["CI_COMMIT_SHA", "CI_COMMIT_BRANCH"];
  const merged = { commit: forge.need(commit), branch: forge.need(branch) };
  const { request, head, by, form } = await approvalOf(forge, merged, stored);
  await writeFile(file, form);
  console.log(`Request ${request} was approved at ${head} by ${list(by)}.`);
  return exitCodes.done;
}

async function release(args: string[]): Promise<number> {
  const values = parseOptions(args, { approved: { type: "string" }, environment: { type: "string" } });
  const [{ forgeOf }, { releaseOf }] = await Promise.all([
    import("../../review/forge/forge.ts"),
    import("../../review/forge/approval.ts"),
  ]);
  const [file, environment] = [required(values, "approved"), required(values, "environment")];
  const { source } = await approvedIn(file);
  const request = source?.request;
  if (source === undefined || request === undefined) {
    throw new Refusal(
      "bad-approval",
      `${file} names no request: give the form that "review summary --approved" wrote.`,
    );
  }
  console.log(`Released by ${list(await releaseOf(forgeOf(process.env), { ...source, request }, environment))}.`);
  return exitCodes.done;
}

const approvedIn = async (file: string): Promise<Approved> => readApproved(await readText(file), file);

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
  // JSON's own escapes leave some of what a terminal obeys, and the reasons hold nodes' words.
  const shown = (_key: string, value: unknown) => (typeof value === "string" ? printable(value, 4_000) : value);
  if (values.json) console.log(JSON.stringify(plans, shown, 2));
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
    import("../fleet/client.ts"),
    import("../../review/collect/bundles.ts"),
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
  const { commentsOf, postComment } = await import("../../review/forge/comment.ts");
  const body = await readText(required(parseOptions(args, { body: { type: "string" } }), "body"));
  console.log(`The comment was ${await postComment(commentsOf(process.env), body)}.`);
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

const readText = async (file: string): Promise<string> => (await readBytes(file)).toString("utf8");

async function readBytes(file: string): Promise<Buffer> {
  try {
    return await readFile(file === "-" ? "/dev/stdin" : file);
  } catch (error) {
    throw new Refusal("unreadable", `${file} cannot be read: ${(error as Error).message}.`);
  }
}
