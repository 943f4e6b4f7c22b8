import { confidentialWorkloadCard } from "../../runtime/cards.ts";
import type { Inputs } from "../preview/inputs.ts";
import type { Preview } from "../preview/preview.ts";
import type { Step } from "../preview/step.ts";
import { code } from "../text.ts";
import { claim, known, predicted, type Told, unknown } from "./line.ts";

const { type, schema } = confidentialWorkloadCard;

/** What verifiers see of the pods of each ConfidentialWorkload, where that changes. */
export function workloadLines({ steps }: Preview): Told[] {
  return steps.filter((step) => step.type === type).flatMap(linesOf);
}

function linesOf(step: Step): Told[] {
  const read = (inputs: Inputs | undefined) => (inputs === undefined ? undefined : schema.safeParse(inputs).data);
  const [before, after] = [read(step.before), read(step.after)];
  const of = `Pods of the workload ${code(step.name)}`;
  if (after === undefined) return step.after === undefined ? [] : [unknown(`${of}: what verifiers see of them.`)];
  const differs = (path: string, old: string | undefined, now: string | undefined, words: string): Told[] =>
    old === now || now === undefined ? [] : [claim(known(`${of}${words}.`), step, [path])];
  const [policy, initdata] = [
    [before?.policyDigest, after.policyDigest ?? none],
    [before?.initdata.digest, after.initdata.digest],
  ] as const;
  const lines: Told[] = [
    ...(before === undefined
      ? []
      : differs("handler", before.handler, after.handler, ` move: ${change(before.handler, after.handler)}`)),
    ...differs("policyDigest", policy[0], policy[1], `: policy ${change(...policy)}`),
    // What reports show of it follows from the digest.
    ...differs("initdata", initdata[0], initdata[1], `: initdata ${change(...initdata)}`),
  ];
  return lines.length === 0 || before === undefined
    ? lines
    : [...lines, predicted(`Verifiers that know only the values before refuse pods of ${code(step.name)}.`)];
}

const none = "none";
const change = (before: string | undefined, after: string): string =>
  before === undefined ? code(after) : `${code(before)} → ${code(after)}`;
