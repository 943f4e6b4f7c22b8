import { parseDocument, visit } from "yaml";

/** A stack of a pipeline's list, and its place there, which names what the pipeline stores for it. */
export interface ListedStack {
  stack: string;
  index: number;
}

/** The program reads nothing of these. */
const besidesTheProgram = /^(docs|examples|templates|test)\/|^[^/]+\.md$|^LICENSE$/;
const stackFile = /^Pulumi\.([^/]+)\.yaml$/;

/**
 * The listed stacks that a change concerns: those whose own file changed, those whose file names a file that changed (such
 * as a payload's manifest), and all of them where anything else of the program changed, or nothing at all: an empty commit
 * asks for what an earlier one left undone.
 *
 * @param listed as the engine takes them: STACK, ORGANIZATION/STACK or ORGANIZATION/PROJECT/STACK
 * @param changed paths from the clone's root with slashes; of a file that moved, both
 * @param stackFiles the text of each stack file after the change, by its name, also of stacks that are not listed
 */
export function changedStacks(listed: string[], changed: string[], stackFiles: Record<string, string>): ListedStack[] {
  if (changed.length === 0) return numbered(listed);
  const named = Object.entries(stackFiles).map(([file, text]) => ({ file, names: textsIn(text) }));
  const files = new Set<string>();
  for (const path of changed) {
    const naming = named.filter(({ names }) => names.has(path));
    if (stackFile.test(path)) files.add(path);
    else if (naming.length > 0) for (const { file } of naming) files.add(file);
    else if (!besidesTheProgram.test(path)) return numbered(listed);
  }
  return numbered(listed).filter(({ stack }) => files.has(`Pulumi.${stack.split("/").at(-1)}.yaml`));
}

export const numbered = (listed: string[]): ListedStack[] => listed.map((stack, index) => ({ stack, index }));

export const isStackFile = (name: string): boolean => stackFile.test(name);

/** Every text in a YAML file, also in one that is not whole. */
function textsIn(yaml: string): Set<string> {
  const texts = new Set<string>();
  visit(parseDocument(yaml), {
    Scalar: (_key, { value }) => void (typeof value === "string" && texts.add(value.replace(/^\.\//, ""))),
  });
  return texts;
}
