import { z } from "zod";
import { Refusal } from "../node-installer/runtime/refusal.ts";
import { leafChanges } from "./leaves.ts";

/** Inputs of a resource as the engine prints them: secrets are the text "[secret]". */
export type Inputs = Record<string, unknown>;

/** What the engine plans to do with one resource. */
export interface Step {
  op: string;
  urn: string;
  /** Its own type, such as `kubernetes:apps/v1:DaemonSet`. */
  type: string;
  name: string;
  /** URN of the parent. */
  parent: string | undefined;
  /** Absent for what is created, or deleted. */
  before: Inputs | undefined;
  after: Inputs | undefined;
  /** Property paths that differ, as the provider names them; whole properties where it says no more. */
  paths: string[];
}

/** The engine's preview, as far as a review needs it. */
export interface Preview {
  project: string;
  stack: string;
  /** By URN, since the engine's own order is not the same twice; without what stays the same. */
  steps: Step[];
  /** Of `steps`, those whose resource a refresh found to be other than the state said: `before` is what it said. */
  drift: Step[];
  /** Deletions that an earlier update did not get to, after it had replaced the resource; none of `steps`. */
  leftBehind: Step[];
  /** Latest known inputs of every resource that the document mentions, by URN. */
  known: Map<string, Inputs>;
  /** Messages of a preview that failed. */
  errors: string[];
  warnings: string[];
}

const state = z
  .object({
    type: z.string().optional(),
    parent: z.string().optional(),
    inputs: z.record(z.string(), z.unknown()).optional(),
    /** Replaced, and to be deleted. */
    delete: z.boolean().optional(),
  })
  .nullish();
type State = z.infer<typeof state>;

const digest = z.object({
  steps: z
    .array(
      z.object({
        op: z.string(),
        urn: z.string(),
        oldState: state,
        newState: state,
        detailedDiff: z.record(z.string(), z.unknown()).nullish(),
        diffReasons: z.array(z.string()).nullish(),
      }),
    )
    .nullish(),
  diagnostics: z.array(z.object({ message: z.string().optional(), severity: z.string() })).nullish(),
});

const metadata = z.object({
  metadata: z.object({
    op: z.string(),
    urn: z.string(),
    old: state,
    new: state,
    detailedDiff: z.record(z.string(), z.unknown()).nullish(),
    diffs: z.array(z.string()).nullish(),
  }),
});
const event = z.object({
  resourcePreEvent: metadata.optional(),
  diagnosticEvent: z.object({ message: z.string(), severity: z.string() }).optional(),
  policyEvent: z.object({ message: z.string(), enforcementLevel: z.string() }).optional(),
  summaryEvent: z.object({ result: z.string().default("succeeded") }).optional(),
});

interface RawStep {
  op: string;
  urn: string;
  before: State;
  after: State;
  paths: string[];
}

/**
 * Reads what `pulumi preview --json` prints: the one document, or with PULUMI_ENABLE_STREAMING_JSON_PREVIEW the engine's
 * events, one a line. Both give the same steps. Throws a Refusal where the text is neither.
 */
export function readPreview(text: string): Preview {
  const { raw, errors, warnings } = text.trimStart().startsWith('{"sequence"') ? readEvents(text) : readDigest(text);
  // Where nothing changes, the stack itself still stays the same.
  if (raw.length === 0 && errors.length === 0) throw notAPreview("it has no step, not even the stack's own");
  const [, stackName = "", project = ""] = /^urn:pulumi:([^:]+)::([^:]+)::/.exec(raw[0]?.urn ?? "") ?? [];
  const steps = raw
    .filter(({ op, urn }) => !silent.has(op) && !urn.includes("::pulumi:pulumi:Stack::"))
    .map(resolve)
    // A replacement that goes first is deleted and created under one URN.
    .sort((a, b) => compare(`${a.urn} ${a.op}`, `${b.urn} ${b.op}`));
  const known = new Map(
    raw.flatMap(({ urn, before, after }) => {
      const inputs = after?.inputs ?? before?.inputs;
      return inputs === undefined ? [] : [[urn, inputs] as const];
    }),
  );
  const refreshed = raw.filter(({ op }) => op === "refresh");
  const states = new Map(refreshed.map(({ urn, before }) => [urn, before?.inputs ?? {}]));
  const drift = steps.flatMap((step) => driftOf(step, states));
  return { project, stack: stackName, steps, drift, leftBehind: leftBehind(raw), known, errors, warnings };
}

/**
 * The engine deletes what a replacement left behind, and calls it by the name that a replacement's own deletion has; it says
 * so only with --show-replacement-steps. A refresh shows at least that the resource is still there.
 */
function leftBehind(raw: RawStep[]): Step[] {
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
  if (said === undefined || leafChanges(said, step.before).length === 0) return [];
  return [{ ...step, before: said, after: step.before }];
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** A replacement is three steps, of which `replace` says it all; what stays the same, or is only read, changes nothing. */
const silent = new Set(["refresh", "same", "create-replacement", "delete-replaced", "read", "read-replacement"]);

function resolve({ op, urn, before, after, paths }: RawStep): Step {
  const [, , types = "", ...name] = urn.split("::");
  return {
    op,
    urn,
    type: types.slice(types.lastIndexOf("$") + 1),
    name: name.join("::"),
    parent: after?.parent ?? before?.parent,
    before: before ? (before.inputs ?? {}) : undefined,
    after: after && op !== "delete" ? (after.inputs ?? {}) : undefined,
    paths: paths.toSorted(),
  };
}

interface Read {
  raw: RawStep[];
  errors: string[];
  warnings: string[];
}

function readDigest(text: string): Read {
  let document: unknown;
  try {
    // Warnings of the engine may stand before the document.
    document = JSON.parse(text.slice(Math.max(0, text.search(/^\{/m))));
  } catch (error) {
    throw notAPreview((error as Error).message, error);
  }
  const parsed = digest.safeParse(document);
  if (!parsed.success) throw notAPreview(firstIssue(parsed.error), parsed.error);
  const { steps, diagnostics } = parsed.data;
  return {
    raw: (steps ?? []).map(({ op, urn, oldState, newState, detailedDiff, diffReasons }) => ({
      op,
      urn,
      before: oldState,
      after: newState,
      paths: pathsOf(detailedDiff, diffReasons),
    })),
    errors: messagesOf(diagnostics ?? [], "error"),
    warnings: messagesOf(diagnostics ?? [], "warning"),
  };
}

/** What is planned is in the events before each step, which are what the document is made of, too. */
function readEvents(text: string): Read {
  const raw: RawStep[] = [];
  const diagnostics: { message: string; severity: string }[] = [];
  let result: string | undefined;
  for (const line of text.split("\n")) {
    if (line.trim() === "") continue;
    let parsed: z.infer<typeof event>;
    try {
      parsed = event.parse(JSON.parse(line));
    } catch (error) {
      throw notAPreview(error instanceof z.ZodError ? firstIssue(error) : (error as Error).message, error);
    }
    if (parsed.diagnosticEvent) diagnostics.push(parsed.diagnosticEvent);
    if (parsed.policyEvent?.enforcementLevel === "mandatory") {
      diagnostics.push({ message: parsed.policyEvent.message, severity: "error" });
    }
    result = parsed.summaryEvent?.result ?? result;
    if (parsed.resourcePreEvent === undefined) continue;
    const { op, urn, old, new: after, detailedDiff, diffs } = parsed.resourcePreEvent.metadata;
    raw.push({ op, urn, before: old, after, paths: pathsOf(detailedDiff, diffs) });
  }
  const [errors, warnings] = [messagesOf(diagnostics, "error"), messagesOf(diagnostics, "warning")];
  if (errors.length > 0) return { raw, errors, warnings };
  if (result === undefined) throw notAPreview("its last event, the engine's summary, is missing");
  if (result !== "succeeded") errors.push(`The engine only says: ${result}.`);
  return { raw, errors, warnings };
}

/** Plugins need not say more than which properties differ; providers' own settings are compared like that. */
const pathsOf = (detailed: object | null | undefined, properties: string[] | null | undefined): string[] => {
  const paths = Object.keys(detailed ?? {});
  return paths.length > 0 ? paths : (properties ?? []);
};

/** The engine writes the severity before the message in one of the forms only. */
const messagesOf = (
  diagnostics: { message?: string | undefined; severity: string }[],
  wanted: "error" | "warning",
): string[] =>
  diagnostics
    .filter(({ severity }) => severity === wanted)
    .map(({ message = "" }) => message.replace(new RegExp(`^${wanted}: `), "").trim());

const firstIssue = ({ issues: [issue] }: z.ZodError): string => `${issue?.path.join(".")}: ${issue?.message}`;

const notAPreview = (reason: string, cause?: unknown): Refusal =>
  new Refusal(
    "bad-preview",
    `This is not what "pulumi preview --json" prints (${reason}). Give its whole standard output.`,
    { cause },
  );
