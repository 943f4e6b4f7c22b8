import * as z from "zod";

/** The value that a text of JSON says; text that is none is an issue like any other. */
export const fromJson = z.string().transform((text, context): unknown => {
  try {
    return JSON.parse(text);
  } catch (error) {
    context.addIssue({ code: "custom", message: `is no JSON: ${error instanceof Error ? error.message : error}` });
    return z.NEVER;
  }
});
