/**
 * How sure a line is. known: the engine's diff says it. predicted: our own table says what follows from the diff.
 * unknown: it may happen, and neither can say whether or how much.
 */
export type Certainty = "known" | "predicted" | "unknown";

export interface Line {
  certainty: Certainty;
  /** One sentence or more, with Markdown's code spans. Never the value of a secret. */
  text: string;
}

/** With a value that only the update will know, a line is not known either. */
export const known = (text: string): Line => ({ certainty: text.includes(unknownText) ? "unknown" : "known", text });
export const predicted = (text: string): Line => ({ certainty: "predicted", text });
export const unknown = (text: string): Line => ({ certainty: "unknown", text });

/** What the engine writes in the place of a value that only the update will know. */
export const notKnownYet = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";
const unknownText = "not known yet";

/** As a code span: nothing in a value can end the span or the line, or show its characters in another order. */
export const code = (value: unknown): string => span(textOf(value), 200);

/** A whole sentence that somebody else wrote, as a code span. */
export const quoted = (sentence: string): string => span(textOf(sentence.replaceAll(/\s+/g, " ")), 1_000);

const span = (text: string, most: number): string =>
  `\`${text === "" ? '""' : text.length > most ? `${text.slice(0, most)}…` : text}\``;

/** "`a` → `b`"; of long values the part where they begin to differ. */
export function exchange(before: unknown, after: unknown): string {
  const [old, now] = [textOf(before), textOf(after)];
  let same = 0;
  while (same < old.length && old[same] === now[same]) same += 1;
  const from = Math.max(old.length, now.length) > 200 ? Math.max(0, same - 50) : 0;
  const part = (text: string) => code(from > 0 ? `…${text.slice(from)}` : text);
  return `${part(old)} → ${part(now)}`;
}

const textOf = (value: unknown): string =>
  (typeof value === "string" ? value : (JSON.stringify(value) ?? "nothing"))
    .replaceAll(/[`\r\n]+/g, " ")
    .replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (each) => `\\u{${each.codePointAt(0)?.toString(16)}}`)
    .replaceAll(notKnownYet, unknownText);

export const count = (number: number, word: string): string => `${number} ${word}${number === 1 ? "" : "s"}`;

/** The first names of many. */
export const few = (names: string[], most = 5): string =>
  names.slice(0, most).map(code).join(", ") + (names.length > most ? ` and ${names.length - most} more` : "");

export const list = (words: string[]): string =>
  words.length < 2 ? words.join() : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
