import { sha256 } from "../runtime/canonical.ts";
import { invisible } from "../runtime/printable.ts";

/** What the engine writes in the place of a value that only the update will know. */
export const notKnownYet = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";

export const unknownText = "not known yet";

/** Characters of a value in a sentence, at most. What is cut says so, with the digest of the whole. */
export const longestValue = 200;

/** As a code span: nothing in a value can end the span or the line, or show its characters in another order. */
export const code = (value: unknown): string => span(textOf(value), longestValue);

/** A whole sentence that somebody else wrote, as a code span. */
export const quoted = (sentence: string): string => span(textOf(sentence.replaceAll(/\s+/g, " ")), 1_000);

const span = (text: string, most: number): string =>
  text.length > most
    ? `\`${text.slice(0, most)}…\` (${count(text.length - most, "more character")}, SHA-256 of all ${sha256(text)})`
    : `\`${text === "" ? '""' : text}\``;

/** "`a` → `b`"; of long values the part where they begin to differ. */
export function exchange(before: unknown, after: unknown): string {
  const [old, now] = [textOf(before), textOf(after)];
  let same = 0;
  while (same < old.length && old[same] === now[same]) same += 1;
  const from = Math.max(old.length, now.length) > longestValue ? Math.max(0, same - 50) : 0;
  const part = (text: string) => code(from > 0 ? `…${text.slice(from)}` : text);
  return `${part(old)} → ${part(now)}`;
}

const textOf = (value: unknown): string =>
  (typeof value === "string" ? value : (JSON.stringify(value) ?? "nothing"))
    .replaceAll(/[`\r\n]+/g, " ")
    .replaceAll(invisible, escaped)
    .replaceAll(notKnownYet, unknownText);

/** One line of a code block: of its characters none is hidden, ends the line or changes the order of others. */
export const visible = (text: string): string =>
  text.replaceAll(invisible, escaped).replaceAll(notKnownYet, unknownText);

const escaped = (each: string) => `\\u{${each.codePointAt(0)?.toString(16)}}`;

/** The engine's own words need no quotes: an operation, or the last part of a type. */
export const word = (text: string): string => (/^[A-Za-z][\w-]*$/.test(text) ? text : code(text));

export const kindOf = (type: string): string =>
  type.startsWith("pulumi:providers:") ? "Provider" : word(type.split(":").at(-1) ?? type);

export const count = (number: number, word: string): string => `${number} ${word}${number === 1 ? "" : "s"}`;

/** The first names of many. */
export const few = (names: string[], most = 5): string =>
  names.slice(0, most).map(code).join(", ") + (names.length > most ? ` and ${names.length - most} more` : "");

export const list = (words: string[]): string =>
  words.length < 2 ? words.join() : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
