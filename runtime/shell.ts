import { Refusal } from "./refusal.ts";

/**
 * The text as one word of a POSIX shell, which gets exactly these bytes: the only way for a value to enter a script or a
 * command.
 */
export function quote(text: string): string {
  if (text.includes("\0"))
    throw new Refusal("not-a-word", `${JSON.stringify(text)} has a NUL character, which no command can be given.`);
  return /^[\w.,:/@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
