import { quote, wordsOf } from "./shell.ts";

/** What a stack has the package's bin do: components make the texts, a review tells them from others'. */
export const stackVerbs = [
  "rollout",
  "uninstall",
  "await-host",
  "local-cluster ensure",
  "local-cluster destroy",
  "image push",
] as const;
export type StackVerb = (typeof stackVerbs)[number];

const bin = "contrast-runtime";

/** The bin as a module of its package. */
export const binModule = `${bin}/cli`;

/**
 * What the engine starts in place of a shell, with the command's text as one more word: so it is the same on Windows, where
 * the shell would be another, and the engine ends the very process that works when an update is cancelled. Node finds the
 * package from the program's directory, as the program itself does: nothing needs to be on PATH.
 */
export const stackInterpreter = ["node", "-e", `import("${binModule}")`, bin];

/**
 * The same for programs in other languages, from whose directory Node finds no package. It is looked for where the engine
 * has it, on whatever machine that is: the folder that the project names in `packages`, then the newest of what the engine
 * installed. Every such stack's state has this text, so it is not polished.
 */
const findPackage = String.raw`
const { readFileSync, readdirSync } = require("node:fs");
const { dirname, join, resolve } = require("node:path");
const tried = (read, otherwise) => { try { return read(); } catch { return otherwise; } };
const text = (file) => tried(() => readFileSync(file, "utf8"), "");
const isPackage = (folder) => /"name": *"${bin}"/.test(text(join(folder, "package.json")));
let project = process.cwd();
while (text(join(project, "Pulumi.yaml")) === "" && dirname(project) !== project) project = dirname(project);
const [, source] = /^ +${bin}:\s*(?:source:\s*)?["']?([./]\S*?)["']?\s*$/m.exec(text(join(project, "Pulumi.yaml"))) ?? [];
const named = source === undefined ? [] : [resolve(project, source), dirname(resolve(project, source))];
const plugins = join(process.env.PULUMI_HOME || join(require("node:os").homedir(), ".pulumi"), "plugins");
const version = (name) => name.slice(name.lastIndexOf("-v"));
const installed = tried(() => readdirSync(plugins), [])
  .filter((name) => name.startsWith("resource-"))
  .sort((a, b) => version(b).localeCompare(version(a), "en", { numeric: true }))
  .map((name) => join(plugins, name));
const found = [...named, join(project, "node_modules", "${bin}"), ...installed].find(isPackage);
if (found) import(require("node:url").pathToFileURL(join(found, "tools/cli/bin.mjs")).href);
else {
  console.error("The Pulumi package ${bin}, whose command this is, is neither in Pulumi.yaml nor among the engine's plugins. Run: pulumi install");
  process.exit(2);
}
`.trim();
export const pluginInterpreter = ["node", "-e", findPackage, bin];

/** The text of a command that an interpreter of these runs. */
export const stackCommand = (verb: StackVerb, ...words: string[]): string =>
  [...verb.split(" "), ...words].map(quote).join(" ");

/** What Node's arguments give the bin: its words, or the one text of a stack's command. */
export function binWords(calledAs: string, words: readonly string[]): readonly string[] {
  const [text] = words;
  return (calledAs === bin && words.length === 1 && text !== undefined ? wordsOf(text) : undefined) ?? words;
}

/** How stacks of releases before call the bin, in a shell. */
const earlierStarts = [["exec", ...stackInterpreter], [bin]];

/** The verb of a text that `stackCommand` may have made, and that its interpreter makes nothing else of. */
export function stackVerb(text: string, interpreter: unknown): StackVerb | undefined {
  const words = wordsOf(text);
  const isOwn =
    Array.isArray(interpreter) &&
    [stackInterpreter, pluginInterpreter].some((own) => interpreter.join("\0") === own.join("\0"));
  const starts = isOwn ? [[]] : interpreter === undefined ? earlierStarts : [];
  const startsWith = (...first: string[]) => first.every((word, index) => words?.[index] === word);
  return stackVerbs.find((verb) => starts.some((start) => startsWith(...start, ...verb.split(" "))));
}
