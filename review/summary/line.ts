import { unknownText } from "../text.ts";

/**
 * How sure a line is. known: the engine's diff says it. predicted: our own table says what follows from the diff.
 * unknown: it may happen, and neither can say whether or how much.
 */
export type Certainty = "known" | "predicted" | "unknown";

export interface Line {
  certainty: Certainty;
  /** One sentence or more, with Markdown's code spans. Never the value of a secret. */
  text: string;
  /** What differs, a line each, for a code block: "- before", "+ after", "  the same". No character in it is invisible. */
  block?: string;
}

/** A line, and what of the preview it says: whatever no line claims is listed as not explained. */
export interface Told extends Line {
  claims?: Claim[];
}

/** Paths of one step, each with everything below it. */
export interface Claim {
  step: { urn: string; op: string };
  paths: string[];
}

/** With a value that only the update will know, a line is not known either. */
export const known = (text: string, block?: string): Line => ({
  certainty: `${text}${block}`.includes(unknownText) ? "unknown" : "known",
  text,
  ...(block && { block }),
});

export const predicted = (text: string): Line => ({ certainty: "predicted", text });

export const unknown = (text: string, block?: string): Line => ({
  certainty: "unknown",
  text,
  ...(block && { block }),
});

/** The line tells these paths of the step, and may tell others of other steps already. */
export const claim = (line: Told, { urn, op }: Claim["step"], paths: string[]): Told => ({
  ...line,
  claims: [...(line.claims ?? []), { step: { urn, op }, paths }],
});
