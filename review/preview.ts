import { z } from "zod";
import { Refusal } from "../runtime/refusal.ts";
import { allLeaves, isBelow, type Leaf, leafChanges } from "./leaves.ts";

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
  /** URN of the provider; absent for components and providers. */
  provider: string | undefined;
  /** Absent for what is created, or deleted. */
  before: Inputs | undefined;
  after: Inputs | undefined;
  /** Property paths that differ, as the provider names them; whole properties where it says no more. */
  paths: string[];
  /** What the engine itself is told of it, such as `protect`, on both sides; empty where there is only one. */
  options: { before: Inputs; after: Inputs };
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

/** Not z.record, which leaves out a key called __proto__. */
const inputs = z.custom<Inputs>((value) => typeof value === "object" && value !== null && !Array.isArray(value));

const state = z
  .looseObject({
    type: z.string().optional(),
    parent: z.string().optional(),
    provider: z.string().optional(),
    inputs: inputs.optional(),
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
        detailedDiff: inputs.nullish(),
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
    detailedDiff: inputs.nullish(),
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

/** A replacement is several steps, of which `replace` says it all. */
const partial = new Set(["create-replacement", "read-replacement", "import-replacement"]);
/** What the state says, and what is left behind, which is told by itself. */
const apart = new Set(["refresh", "delete-replaced"]);

/** What stays the same, or is read as it was before, changes nothing, unless the engine is told otherwise of it. */
function isSilent({ op, urn, type, before, after, options }: Step, replaced: Set<string>): boolean {
  if (apart.has(op) || (partial.has(op) && replaced.has(urn))) return true;
  // The stack itself is made of what is listed.
  if (type === "pulumi:pulumi:Stack") return true;
  if (op === "same") return allLeaves(options.before, options.after).length === 0;
  return op === "read" && before !== undefined && after !== undefined && allLeaves(before, after).length === 0;
}

function resolve({ op, urn, before, after, paths }: RawStep): Step {
  const [, , types = "", ...name] = urn.split("::");
  const [old, now] = [before ?? undefined, after && op !== "delete" ? after : undefined];
  return {
    op,
    urn,
    type: types.slice(types.lastIndexOf("$") + 1),
    name: name.join("::"),
    // The engine's events have empty texts where the document has none.
    parent: after?.parent || before?.parent || undefined,
    provider: providerOf(after) ?? providerOf(before),
    before: old && (old.inputs ?? {}),
    after: now && (now.inputs ?? {}),
    paths: paths.toSorted(),
    options: {
      before: old ? optionsOf(old, now ? all : whenItGoes) : {},
      after: now ? optionsOf(now, old ? all : whenItComes) : {},
    },
  };
}

/** A reference is the provider's URN and its id, which a preview may not know. */
const providerOf = (state: State): string | undefined => state?.provider?.replace(/::[^:]*$/, "") || undefined;

/** What a resource is told by its options in the program. What the engine notes down by itself is none of them. */
const optionNames = [
  ...["parent", "protect", "retainOnDelete", "deletedWith", "external", "importID", "aliases", "ignoreChanges"],
  ...["replaceOnChanges", "replaceWith", "deleteBeforeReplace", "customTimeouts", "resourceHooks"],
];

const all = ["provider", ...optionNames];
/** What of them already matters when the resource is made; the others say how it changes, and are told when they do. */
const whenItComes = all.filter(
  (name) => !/^(provider|parent|aliases|replaceOnChanges|replaceWith|deleteBeforeReplace|customTimeouts)$/.test(name),
);
const whenItGoes = ["retainOnDelete", "resourceHooks"];

function optionsOf(state: NonNullable<State>, names: string[]): Inputs {
  const told = names.flatMap((name) => {
    const value = name === "provider" ? providerOf(state) : state[name];
    return isNothing(value) ? [] : [[name, value] as const];
  });
  return Object.fromEntries(told);
}

const isNothing = (value: unknown) =>
  value === undefined || value === null || value === false || value === "" || JSON.stringify(value) === "[]";

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

/**
 * Everything that one step changes: its own operation as `(create)`, each leaf of its inputs, its options as `options.…`,
 * and paths whose values the engine does not show. An update that shows nothing at all has one leaf without a path.
 */
export function changesOf(step: Step): Leaf[] {
  const { op, before, after, options, paths, type } = step;
  // What goes says nothing more; what it runs when it goes is in the commands' own line.
  const leaves = op === "delete" ? [] : allLeaves(before ?? {}, after ?? {}).filter((leaf) => !isImplied(step, leaf));
  const told = allLeaves(options.before, options.after, "options");
  const named = paths.filter((path) => !isInput(path, leaves));
  const hidden = [...new Set(named)].map((path) => {
    const [from, to] = [valueAt(before, path), valueAt(after, path)];
    const isShown = JSON.stringify(from) !== JSON.stringify(to);
    return isShown ? { path, before: from, after: to } : { path, before: undefined, after: undefined, isHidden: true };
  });
  const all = [...leaves, ...hidden, ...told].map((leaf) =>
    isSecret(type, leaf.path) ? { ...leaf, isHidden: true } : leaf,
  );
  if (op !== "update" && op !== "same") return [{ path: `(${op})`, before: undefined, after: undefined }, ...all];
  return all.length > 0 ? all : [{ path: "", before: undefined, after: undefined, isHidden: true }];
}

/** Whether a path that the engine names is one of these leaves, or above or below one. It quotes keys in its own ways. */
function isInput(path: string, leaves: Leaf[]): boolean {
  const plain = (text: string) => text.replaceAll(/\["([^"\\]*)"\]/g, ".$1").replaceAll(/\[(\d+)\]/g, ".$1");
  const named = plain(path);
  return leaves.some((leaf) => {
    const own = plain(leaf.path);
    return isBelow(own, named) || isBelow(named, own);
  });
}

function valueAt(inputs: Inputs | undefined, path: string): unknown {
  const keys = path.match(/[^.[\]"]+/g) ?? [];
  return keys.reduce<unknown>(
    (value, key) =>
      typeof value === "object" && value !== null && Object.hasOwn(value, key) ? (value as Inputs)[key] : undefined,
    inputs,
  );
}

/** What type and name say already: of an object of Kubernetes its version, its kind, and a name that is the resource's. */
function isImplied({ type, name }: Step, { path, before, after }: Leaf): boolean {
  const [, group = "", version, kind] = /^kubernetes:([^/:]+)\/([^/:]+):([^/:]+)$/.exec(type) ?? [];
  if (before !== undefined || kind === undefined) return false;
  if (path === "kind") return after === kind;
  if (path === "metadata.name") return after === name;
  return path === "apiVersion" && after === (group === "core" ? version : `${group}/${version}`);
}

/** Of what Kubernetes or a provider keeps secret, whether or not the program says so. */
function isSecret(type: string, path: string): boolean {
  if (/^kubernetes:core\/v1:Secret(Patch)?$/.test(type)) return /^(data|stringData)(\.|\[|$)/.test(path);
  if (type === "kubernetes:core/v1:SecretList") return /^items\[\d+\]\.(data|stringData)(\.|\[|$)/.test(path);
  return type === "pulumi:providers:kubernetes" && path === "kubeconfig";
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
