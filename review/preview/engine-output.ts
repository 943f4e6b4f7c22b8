import * as z from "zod";
import { Refusal } from "../../runtime/refusal.ts";
import { inputsSchema } from "./inputs.ts";

const stateSchema = z
  .looseObject({
    type: z.string().optional(),
    parent: z.string().optional(),
    provider: z.string().optional(),
    inputs: inputsSchema.optional(),
    /** Replaced, and to be deleted. */
    delete: z.boolean().optional(),
  })
  .nullish();

export type State = z.infer<typeof stateSchema>;

const digestSchema = z.object({
  steps: z
    .array(
      z.object({
        op: z.string(),
        urn: z.string(),
        oldState: stateSchema,
        newState: stateSchema,
        detailedDiff: inputsSchema.nullish(),
        diffReasons: z.array(z.string()).nullish(),
      }),
    )
    .nullish(),
  diagnostics: z.array(z.object({ message: z.string().optional(), severity: z.string() })).nullish(),
});

const metadataSchema = z.object({
  metadata: z.object({
    op: z.string(),
    urn: z.string(),
    old: stateSchema,
    new: stateSchema,
    detailedDiff: inputsSchema.nullish(),
    diffs: z.array(z.string()).nullish(),
  }),
});

const eventSchema = z.object({
  resourcePreEvent: metadataSchema.optional(),
  diagnosticEvent: z.object({ message: z.string(), severity: z.string() }).optional(),
  policyEvent: z.object({ message: z.string(), enforcementLevel: z.string() }).optional(),
  summaryEvent: z.object({ result: z.string().default("succeeded") }).optional(),
});

export interface RawStep {
  op: string;
  urn: string;
  before: State;
  after: State;
  paths: string[];
}

interface Read {
  raw: RawStep[];
  errors: string[];
  warnings: string[];
}

export function readDigest(text: string): Read {
  let document: unknown;
  try {
    // Warnings of the engine may stand before the document.
    document = JSON.parse(text.slice(Math.max(0, text.search(/^\{/m))));
  } catch (error) {
    throw notAPreview((error as Error).message, error);
  }
  const parsed = digestSchema.safeParse(document);
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
export function readEvents(text: string): Read {
  const raw: RawStep[] = [];
  const diagnostics: { message: string; severity: string }[] = [];
  let result: string | undefined;
  for (const line of text.split("\n")) {
    if (line.trim() === "") continue;
    let parsed: z.infer<typeof eventSchema>;
    try {
      parsed = eventSchema.parse(JSON.parse(line));
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

const firstIssue = ({ issues: [issue] }: z.ZodError): string =>
  [issue?.path.join("."), issue?.message].filter(Boolean).join(": ");

export const notAPreview = (reason: string, cause?: unknown): Refusal =>
  new Refusal(
    "bad-preview",
    `This is not what "pulumi preview --json" prints (${reason}). Give its whole standard output.`,
    { cause },
  );
