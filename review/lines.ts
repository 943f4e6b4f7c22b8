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

export const known = (text: string): Line => ({ certainty: "known", text });
export const predicted = (text: string): Line => ({ certainty: "predicted", text });
export const unknown = (text: string): Line => ({ certainty: "unknown", text });

/** What the engine writes in the place of a value that only the update will know. */
export const notKnownYet = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";

/** As a code span: nothing in a value can end the span or the line. */
export const code = (value: unknown): string => {
  const text = (typeof value === "string" ? value : (JSON.stringify(value) ?? "nothing"))
    .replaceAll(/[`\r\n]+/g, " ")
    .replaceAll(notKnownYet, "not known yet");
  return `\`${text === "" ? '""' : text.length > 200 ? `${text.slice(0, 200)}…` : text}\``;
};

export const count = (number: number, word: string): string => `${number} ${word}${number === 1 ? "" : "s"}`;

/** The first names of many. */
export const few = (names: string[], most = 5): string =>
  names.slice(0, most).map(code).join(", ") + (names.length > most ? ` and ${names.length - most} more` : "");

export const list = (words: string[]): string =>
  words.length < 2 ? words.join() : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
