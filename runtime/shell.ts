import { Refusal } from "./refusal.ts";

/**
 * The text as one word of a POSIX shell, which gets exactly these bytes: the only way for a value to enter a script or a
 * command.
 */
export function quote(text: string): string {
  if (text.includes("\0"))
    throw new Refusal("not-a-word", `${JSON.stringify(text)} has a NUL character, which no command can be given.`);
  return bare.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

const bare = /^[\w.,:/@%+=-]+$/;

/** The words of a text that is nothing but such words, on one line; of any other `undefined`. */
export function wordsOf(text: string): string[] | undefined {
  const word = /(?:[\w.,:/@%+=-]+|'[^'\n]*'(?:\\''[^'\n]*')*)(?: |$)/y;
  const words: string[] = [];
  while (word.lastIndex < text.length) {
    const [found] = word.exec(text) ?? [];
    if (found === undefined) return undefined;
    const own = found.trimEnd();
    words.push(own.startsWith("'") ? own.slice(1, -1).replaceAll("'\\''", "'") : own);
  }
  return text.endsWith(" ") ? undefined : words;
}
