import { hash } from "node:crypto";

/**
 * JSON with sorted keys, so that equal values give equal bytes whatever order they were written in. Keys whose value is
 * `undefined` are left out. With `indent`, one value per line, for text that people review.
 */
export function canonicalJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, (_key, part: unknown) => (isRecord(part) ? sorted(part) : part), indent);
}

export const sha256 = (bytes: string | Uint8Array): string => hash("sha256", bytes);

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const sorted = (record: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
