import { leafDifferences, treeDifferences } from "./differences.ts";
import { notAPreview, type RawStep, readDigest, readEvents } from "./engine-output.ts";
import type { Inputs } from "./inputs.ts";
import type { Manifests } from "./rendered.ts";
import { resolve, type Step } from "./step.ts";

/** The engine's preview, or what rendered manifests would have there, as far as a review needs it. */
export interface Preview {
  project: string;
  stack: string;
  /** By URN, since the engine's own order is not the same twice; without what stays the same. */
  steps: Step[];
  /** Of `steps`, those whose resource a refresh found to be other than the state said: `before` is what it said. */
  drift: Step[];
  /** Deletions that an earlier update did not get to, after it had replaced the resource; none of `steps`. */
  pendingDeletions: Step[];
  /** Latest known inputs of every resource that the document mentions, by URN. */
  inputsByUrn: Map<string, Inputs>;
  /** Messages of a preview that failed. */
  errors: string[];
  warnings: string[];
  /** Only of rendered manifests, which something else applies. */
  manifests: Manifests | undefined;
}

/**
 * Reads what `pulumi preview --json` prints: the one document, or with PULUMI_ENABLE_STREAMING_JSON_PREVIEW the engine's
 * events, one a line. Both give the same steps. Throws a Refusal where the text is neither.
 */
export function readPreview(text: string): Preview {
  const { raw, errors, warnings } = text.trimStart().startsWith('{"sequence"') ? readEvents(text) : readDigest(text);
  if (raw.some(({ before, after }) => isTooDeep(before) || isTooDeep(after))) {
    throw notAPreview(`a resource has values in more than ${deepest} levels`);
  }
  // Where nothing changes, the stack itself still stays the same.
  if (raw.length === 0 && errors.length === 0) throw notAPreview("it has no step, not even the stack's own");
  const [, stackName = "", project = ""] = /^urn:pulumi:([^:]+)::([^:]+)::/.exec(raw[0]?.urn ?? "") ?? [];
  const replaced = new Set(raw.flatMap(({ op, urn }) => (op === "replace" ? [urn] : [])));
  const steps = raw
    .map(resolve)
    .filter((step) => !isSilent(step, replaced))
    // A replacement that goes first is deleted and created under one URN.
    .sort((a, b) => compare(`${a.urn} ${a.op}`, `${b.urn} ${b.op}`));
  const inputsByUrn = new Map(
    raw.flatMap(({ urn, before, after }) => {
      const inputs = after?.inputs ?? before?.inputs;
      return inputs === undefined ? [] : [[urn, inputs] as const];
    }),
  );
  const refreshed = raw.filter(({ op }) => op === "refresh");
  const states = new Map(refreshed.map(({ urn, before }) => [urn, before?.inputs ?? {}]));
  const drift = steps.flatMap((step) => driftOf(step, states));
  return {
    project,
    stack: stackName,
    steps,
    drift,
    pendingDeletions: pendingDeletions(raw),
    inputsByUrn,
    errors,
    warnings,
    manifests: undefined,
  };
}

/**
 * The engine deletes what a replacement left behind, and calls it by the name that a replacement's own deletion has; it says
 * so only with --show-replacement-steps. A refresh shows at least that the resource is still there.
 */
function pendingDeletions(raw: RawStep[]): Step[] {
  return [...Map.groupBy(raw, ({ urn }) => urn).values()].flatMap((same) => {
    const of = (op: string) => same.filter((step) => step.op === op);
    const [deletions, refreshed] = [of("delete-replaced"), of("refresh").filter(({ before }) => before?.delete)];
    const left = Math.max(deletions.length - of("replace").length, refreshed.length, 0);
    return [...deletions, ...refreshed]
      .slice(0, left)
      .map((step) => resolve({ ...step, op: "delete", after: undefined, paths: [] }));
  });
}

/** A refresh comes first and shows what the state said; the step that follows starts from what it found. */
function driftOf(step: Step, states: Map<string, Inputs>): Step[] {
  const said = states.get(step.urn);
  if (said === undefined || treeDifferences(said, step.before).length === 0) return [];
  return [{ ...step, before: said, after: step.before }];
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** A replacement is several steps, of which `replace` says it all. */
const partial = new Set(["create-replacement", "read-replacement", "import-replacement"]);

/** What the state says, and what is left behind, which is told by itself. */
const apart = new Set(["refresh", "delete-replaced"]);

/** What stays the same, or is read as it was before, changes nothing, unless the engine is told otherwise of it. */
function isSilent({ op, urn, type, before, after, options }: Step, replaced: Set<string>): boolean {
  if (apart.has(op) || (partial.has(op) && replaced.has(urn))) return true;
  // The stack itself is made of what is listed.
  if (type === "pulumi:pulumi:Stack") return true;
  if (op === "same") return leafDifferences(options.before, options.after).length === 0;
  return op === "read" && before !== undefined && after !== undefined && leafDifferences(before, after).length === 0;
}

const deepest = 64;

/** Without recursion, which is what such a value would exhaust. */
function isTooDeep(value: unknown): boolean {
  let level = [value];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > deepest) return true;
    level = level.flatMap((each) => (typeof each === "object" && each !== null ? Object.values(each) : []));
  }
  return false;
}
