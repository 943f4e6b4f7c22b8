import * as z from "zod";
import { canonicalJson } from "../../runtime/canonical.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { Summary } from "../summary/summary.ts";

/** What a preview was made of, and by which run of a job: the canonical form carries it. */
const sourceSchema = z.object({
  /** Number of the pull or merge request. */
  request: z.number().optional(),
  /** The commit whose program ran; of a request its last one, not the merge that a forge makes for a trial. */
  commit: z.string(),
  /** GitHub's run, GitLab's pipeline. */
  run: z.string(),
  /** GitHub's attempt at the run, GitLab's job: both are higher when somebody runs it again. */
  attempt: z.string(),
  /** SHA-256 of the update plan that the same preview saved. */
  plan: z.string().optional(),
});

export type Source = z.infer<typeof sourceSchema>;

const approvedSchema = z.object({
  schemaVersion: z.literal(2),
  project: z.string(),
  stack: z.string(),
  sections: z.array(
    z.object({
      title: z.string(),
      lines: z.array(
        z.object({
          certainty: z.enum(["known", "predicted", "unknown"]),
          text: z.string(),
          block: z.string().optional(),
        }),
      ),
    }),
  ),
  operations: z.array(
    z.object({
      op: z.string(),
      type: z.string(),
      name: z.string(),
      urn: z.string(),
      parent: z.string().optional(),
      provider: z.string().optional(),
      providerInputs: z.string().optional(),
      changed: z.array(z.string()),
      inputs: z.string().optional(),
    }),
  ),
  errors: z.array(z.string()),
  /** Absent where it was made outside of a forge's job. */
  source: sourceSchema.optional(),
});

/** What `canonical` writes. */
export type Approved = z.infer<typeof approvedSchema>;

/**
 * The form that is approved and compared: the same text for the same plan, whatever the machine, the time, and the order
 * of steps; but for its source, which is where it is from and is not compared.
 */
export function canonical({ project, stack, sections, operations, errors }: Summary, source?: Source): string {
  return `${canonicalJson({ schemaVersion: 2, project, stack, sections, operations, errors, source }, 2)}\n`;
}

/** Throws a Refusal where the text is not what `canonical` writes. */
export function readApproved(text: string, file: string): Approved {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    // The schema says the same.
  }
  const parsed = approvedSchema.safeParse(document);
  if (parsed.success) return parsed.data;
  if (z.object({ schemaVersion: z.literal(1) }).safeParse(document).success) {
    throw new Refusal(
      "old-approval",
      `${file} was written by an earlier version, which did not note down under which parent and by which provider each resource is made. ` +
        "Preview again on the pull request and have that approved.",
    );
  }
  throw new Refusal(
    "bad-approval",
    `${file} is not an approved summary: give the file that "contrast-runtime review summary --canonical FILE" wrote.`,
    { cause: parsed.error },
  );
}
