/** What a document shows in fences. */
export interface Fence {
  language: string;
  text: string;
  /** The heading above it. */
  heading: string;
  /** The file that the sentence before it names: "In `Pulumi.prod.yaml`:". */
  file: string | undefined;
}

export function fences(markdown: string): Fence[] {
  const found: Fence[] = [];
  let heading = "";
  let before = "";
  let open: { language: string; indent: number; lines: string[] } | undefined;
  for (const line of markdown.split("\n")) {
    const [, indent = "", language = ""] = /^( *)```(\w*)$/.exec(line) ?? [];
    const isFence = /^ *```\w*$/.test(line);
    if (open !== undefined && isFence) {
      const [, file] = /`([\w./-]+)`[^`]*:$/.exec(before.trim()) ?? [];
      found.push({ language: open.language, text: `${open.lines.join("\n")}\n`, heading, file });
      open = undefined;
      before = "";
    } else if (open !== undefined) open.lines.push(line.slice(open.indent));
    else if (isFence) open = { language, indent: indent.length, lines: [] };
    else if (line.startsWith("#")) heading = line.replace(/^#+ /, "");
    else if (line.trim() !== "") before = line;
  }
  return found;
}
