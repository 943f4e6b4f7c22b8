/**
 * What a terminal would obey instead of showing it: colours and cursor movements (CSI), titles and links (OSC, and its
 * kin DCS, SOS, PM and APC, each with its text up to its end), and the two-character commands. ECMA-48, 5.4 and 8.3.
 */
const sequences =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it is about
  /(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]|(?:\u001b[\]PX^_]|[\u009d\u0090\u0098\u009e\u009f])[^\u0007\u001b\u009c]*(?:\u0007|\u001b\\|\u009c)?|\u001b[ -/]*[0-Z\\^-~]/g;

/**
 * Control and format characters: also those that reverse or hide text (bidi, zero-width, tags), half pairs, and what ends
 * a line. Here they are taken out; where a reviewer has to see that they are there (review/text.ts) they are spelled out.
 */
export const invisible = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/**
 * Somebody else's words (a node's annotation, an API server's answer, a process's name, a program's output) as one line
 * that can be shown on a terminal, in an Event or in a log: no control characters or escape sequences, spaces for ends of
 * lines, and at most `longest` characters, the last of which is then "…". Idempotent, in time linear in the text.
 */
export function printable(text: string, longest = 500): string {
  const line = text
    .replace(sequences, "")
    .replace(/[\s\u0085]/g, " ")
    .replace(invisible, "")
    .replace(/ {2,}/g, " ")
    .trim();
  if (line.length <= longest) return line;
  // A pair of surrogates is not cut in half.
  return `${line.slice(0, Math.max(0, longest - 1)).replace(/[\ud800-\udbff]$/, "")}…`;
}

/** `printable` for text of several lines, such as a program's output: each line by itself, at most `most` of them. */
export function printableLines(text: string, most = 20, longest = 500): string {
  const lines = text.split(/\r\n|[\n\r\u0085\u2028\u2029]/).map((line) => printable(line, longest));
  const cut = lines.length > most ? [`… and ${lines.length - most} more lines`] : [];
  return [...lines.slice(0, most), ...cut].join("\n");
}

/** The first of many names, printable, and how many there are besides: "a, b … and 12 more". */
export function listed(names: readonly string[], most = 10, longest = 253): string {
  const shown = names.slice(0, most).map((name) => printable(name, longest));
  return shown.join(", ") + (names.length > most ? ` … and ${names.length - most} more` : "");
}
