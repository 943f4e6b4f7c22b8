import * as z from "zod";

/** Inputs of a resource as the engine prints them: secrets are the text "[secret]". */
export type Inputs = Record<string, unknown>;

/** Not z.record, which leaves out a key called __proto__. */
export const inputsSchema = z.custom<Inputs>(
  (value) => typeof value === "object" && value !== null && !Array.isArray(value),
);

/** What a list holds; of a list that only the update will know, the text that stands for it. */
export const items = <T = unknown>(value: unknown): T[] =>
  (Array.isArray(value) ? value : value === undefined || value === null ? [] : [value]) as T[];
