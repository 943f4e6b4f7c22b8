/** Inputs of a resource as the engine prints them: secrets are the text "[secret]". */
export type Inputs = Record<string, unknown>;

/** What a list holds; of a list that only the update will know, the text that stands for it. */
export const items = <T = unknown>(value: unknown): T[] =>
  (Array.isArray(value) ? value : value === undefined || value === null ? [] : [value]) as T[];
