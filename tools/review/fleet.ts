import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { readSpec } from "../../node-installer/install/read-spec.ts";
import { type BundleText, type FleetPlan, planFleet } from "../../review/fleet-plan/plan.ts";
import { fleetSentence, noticeSentence, outcomeSentence } from "../../review/fleet-plan/sentences.ts";
import { readPreview } from "../../review/preview/preview.ts";
import { plannedNodes, plannedSpecs } from "../../review/summary/groups.ts";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { InstallSpec } from "../../runtime/spec.ts";
import { cannotBeRead } from "../../runtime/unreadable.ts";
import { exitCodes } from "../process/exit-codes.ts";
import { readText } from "./files.ts";

interface FleetOptions {
  bundles: string;
  /** Without a preview, the specs. */
  preview: string | undefined;
  spec: string[];
  json: true | undefined;
}

/** Prints what becomes of each node; returns the exit code. */
export async function fleet({ bundles, preview, spec, json }: FleetOptions): Promise<number> {
  const planned = async (file: string) => {
    const preview = readPreview(await readText(file));
    return await planFleets(plannedSpecs(preview), bundles, plannedNodes(preview));
  };
  const given = async (files: string[]) =>
    await planFleets(await Promise.all(files.map(async (file) => (await readSpec(file)).spec)), bundles);
  const plans = preview === undefined ? await given(spec) : await planned(preview);
  // JSON's own escapes leave some of what a terminal obeys, and the reasons hold nodes' words.
  const shown = (_key: string, value: unknown) => (typeof value === "string" ? printable(value, 4_000) : value);
  if (json) console.log(JSON.stringify(plans, shown, 2));
  for (const plan of json ? [] : plans) {
    console.log(`${plan.group}: ${fleetSentence(plan).replaceAll("`", "")}`);
    for (const outcome of plan.outcomes) console.log(`  ${outcomeSentence(outcome).replaceAll("`", "")}`);
    for (const notice of plan.notices) console.log(`  ${noticeSentence(notice).replaceAll("`", "")}`);
  }
  if (plans.length === 0) console.error("The preview changes no install spec: no node has anything to do.");
  return plans.some(({ outcomes }) => outcomes.some(({ outcome }) => outcome === "refused"))
    ? exitCodes.failed
    : exitCodes.done;
}

/** A group that is new has no installers yet, and so no bundles. */
export function planFleets(
  specs: InstallSpec[],
  directory: string,
  nodes?: Map<string, string[]>,
): Promise<FleetPlan[]> {
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
    throw new Refusal("no-bundles", `The bundles' directory ${cannotBeRead(directory, error)}.`);
  }
  for (const name of names.sort()) {
    const file = join(directory, name);
    yield { file, text: textOf(file) };
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new Refusal("no-bundles", `The bundle ${cannotBeRead(file, error)}.`);
  }
}
