import { z } from "zod";
import { canonicalJson } from "../node-installer/runtime/canonical.ts";
import { Refusal } from "../node-installer/runtime/refusal.ts";

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
  /** Property paths that differ, as the provider names them. */
  paths: string[];
}

/** The engine's preview, as far as a review needs it. */
export interface Preview {
  project: string;
  stack: string;
  /** By URN, since the engine's own order is not the same twice; without what stays the same. */
  steps: Step[];
  /** What a refresh found to be other than the state says. */
  drift: Step[];
  /** Latest known inputs of every resource that the document mentions, by URN. */
  known: Map<string, Inputs>;
  /** Messages of a preview that failed. */
  errors: string[];
}

const state = z
  .object({
    type: z.string().optional(),
    parent: z.string().optional(),
    inputs: z.record(z.string(), z.unknown()).optional(),
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
  }),
});
const event = z.object({
  resourcePreEvent: metadata.optional(),
  resOutputsEvent: metadata.optional(),
  diagnosticEvent: z.object({ message: z.string(), severity: z.string() }).optional(),
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
  const { raw, errors } = text.trimStart().startsWith('{"sequence"') ? readEvents(text) : readDigest(text);
  const [, stackName = "", project = ""] = /^urn:pulumi:([^:]+)::([^:]+)::/.exec(raw[0]?.urn ?? "") ?? [];
  const steps: Step[] = [];
  const drift: Step[] = [];
  const known = new Map<string, Inputs>();
  for (const step of raw) {
    const inputs = step.after?.inputs ?? step.before?.inputs;
    if (inputs !== undefined) known.set(step.urn, inputs);
    if (step.op === "refresh") {
      if (hasDrifted(step)) drift.push(resolve(step));
    } else if (!silent.has(step.op) && !step.urn.includes("::pulumi:pulumi:Stack::")) steps.push(resolve(step));
  }
  const byUrn = (a: Step, b: Step) => (a.urn < b.urn ? -1 : a.urn > b.urn ? 1 : 0);
  return { project, stack: stackName, steps: steps.sort(byUrn), drift: drift.sort(byUrn), known, errors };
}

/** A replacement is three steps, of which `replace` says it all; what stays the same, or is only read, changes nothing. */
const silent = new Set(["same", "create-replacement", "delete-replaced", "read", "read-replacement"]);

/** Inputs alone: outputs such as a DaemonSet's status change all the time. */
const hasDrifted = ({ before, after }: RawStep): boolean =>
  !after || canonicalJson(before?.inputs) !== canonicalJson(after.inputs);

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

function readDigest(text: string): { raw: RawStep[]; errors: string[] } {
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
    raw: (steps ?? []).map(({ op, urn, oldState, newState, detailedDiff }) => ({
      op,
      urn,
      before: oldState,
      after: newState,
      paths: Object.keys(detailedDiff ?? {}),
    })),
    errors: errorsOf(diagnostics ?? []),
  };
}

/** What is planned is in the events before each step; what a refresh found is in the events after it. */
function readEvents(text: string): { raw: RawStep[]; errors: string[] } {
  const raw: RawStep[] = [];
  const diagnostics: { message: string; severity: string }[] = [];
  for (const line of text.split("\n")) {
    if (line.trim() === "") continue;
    let parsed: z.infer<typeof event>;
    try {
      parsed = event.parse(JSON.parse(line));
    } catch (error) {
      throw notAPreview(error instanceof z.ZodError ? firstIssue(error) : (error as Error).message, error);
    }
    const { resourcePreEvent, resOutputsEvent, diagnosticEvent } = parsed;
    if (diagnosticEvent) diagnostics.push(diagnosticEvent);
    const metadata = resourcePreEvent?.metadata ?? resOutputsEvent?.metadata;
    const isAfter = resOutputsEvent !== undefined;
    if (!metadata || (metadata.op === "refresh") !== isAfter) continue;
    const { op, urn, old, new: after, detailedDiff } = metadata;
    raw.push({ op, urn, before: old, after, paths: Object.keys(detailedDiff ?? {}) });
  }
  return { raw, errors: errorsOf(diagnostics) };
}

const errorsOf = (diagnostics: { message?: string | undefined; severity: string }[]): string[] =>
  diagnostics.filter(({ severity }) => severity === "error").map(({ message = "" }) => message.trim());

const firstIssue = ({ issues: [issue] }: z.ZodError): string => `${issue?.path.join(".")}: ${issue?.message}`;

const notAPreview = (reason: string, cause: unknown): Refusal =>
  new Refusal(
    "bad-preview",
    `This is not what "pulumi preview --json" prints (${reason}). Give its whole standard output.`,
    { cause },
  );
