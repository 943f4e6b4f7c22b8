import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { describe, expect, test } from "vitest";
import { program } from "../../tools/cli/main.ts";
import { pluginVersion } from "../../tools/engine/versions.ts";
import { packageRoot } from "../../tools/files/project.ts";
import { secretCommands } from "../example-secrets.ts";
import { examples } from "../examples.ts";
import { fences } from "../markdown.ts";
import { commandsOf, shownWords, wordsOf } from "../shown-commands.ts";

/*
 * What the documents show to be typed can be typed: our own commands are read by the command line's own definition, all
 * others are run by a test that takes their words from the document (`shownWords`), follows the page or the example that
 * has them, or is in this list, since what it does takes minutes or changes the clone: with the test of what it is made of.
 */
const madeOf: [command: RegExp, test: string, words: string][] = [
  [/^npm start$/, "test/unit/tools/dev/bootstrap.test.ts", '"tools/dev/start.ts"'],
  [/^npm run release -- build /, "test/engine/tools/dev/release.test.ts", "buildRelease("],
];
/** The tests themselves, and what they do not have: Trustee's own tool, GitHub's, Kata's newest releases, and a tag. */
const notOurs =
  /^(npm test$|rvps-tool register --path |gh attestation verify |npm run release -- payloads$|git checkout v0\.1\.0$)/;

const text = (file: string): string => readFileSync(join(packageRoot, file), "utf8");
const documents = [
  "README.md",
  ...readdirSync(join(packageRoot, "docs"), { recursive: true, encoding: "utf8" })
    .map((name) => `docs/${name.replaceAll("\\", "/")}`)
    .filter((name) => name.endsWith(".md")),
];

/** HEX stands for as many digits as a launch value has. */
const words = (command: string): string[] => wordsOf(command.replaceAll(/\bHEX\b/g, "0".repeat(96)));

/** Every call of `shownWords` in the tests. */
const taken = readdirSync(join(packageRoot, "test"), { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".test.ts"))
  .flatMap((name) => [...text(join("test", name)).matchAll(/\bshownWords\(\s*"([^"]+)",\s*"([^"]+)"/g)])
  .map(([, document = "", beginning = ""]) => ({ document, beginning }));
const ofExamples = examples
  .flatMap((name) => secretCommands(text(`examples/Pulumi.${name}.yaml`)))
  .flatMap(({ command }) => commandsOf(command));

/** The words behind the bin's name; undefined: another program. */
function ownWords(command: string): string[] | undefined {
  const [, npm, rest = ""] = /^(?:(?:npx )?contrast-runtime|npm run (lock|image|status) --) ?(.*)$/.exec(command) ?? [];
  if (!/^(npx )?contrast-runtime\b/.test(command) && npm === undefined) return undefined;
  return [...(npm === undefined ? [] : [npm]), ...words(rest)];
}

/** Throws unless verb, options, values and arguments are as the definition has them. */
async function readByDefinition(line: string[]): Promise<void> {
  let command: CommandUnknownOpts = await program(line);
  const rest = [...line];
  for (;;) {
    const next = command.commands.find((each) => each.name() === rest[0]);
    if (next === undefined) break;
    command = next;
    rest.shift();
  }
  expect(command.parent, `no verb: ${line.join(" ")}`).not.toBeNull();
  const { operands, unknown } = command.parseOptions(rest);
  expect(unknown, line.join(" ")).toEqual([]);
  const missing = command.options.filter(
    (option) => option.mandatory && command.getOptionValue(option.attributeName()) === undefined,
  );
  expect(missing.map(({ long }) => long)).toEqual([]);
  const { registeredArguments } = command;
  expect(operands.length).toBeGreaterThanOrEqual(registeredArguments.filter(({ required }) => required).length);
  if (!registeredArguments.some(({ variadic }) => variadic))
    expect(operands.length).toBeLessThanOrEqual(registeredArguments.length);
}

/** The page that a test follows word by word, and the headings that it follows. */
const page = "docs/existing-cluster.md";
const follower = text("test/cluster/existing-cluster.test.ts");
const isFollowed = (heading: string): boolean => follower.includes(`follow("${heading}"`);

const shown = documents.flatMap((document) =>
  fences(text(document))
    .filter(({ language }) => language === "sh")
    .flatMap(({ text, heading }) => commandsOf(text).map((command) => ({ document, heading, command }))),
);
const own = shown.flatMap(({ document, command }) => {
  const line = ownWords(command);
  return line === undefined ? [] : [{ document, command, line }];
});
const others = shown.filter(({ command }) => ownWords(command) === undefined && !notOurs.test(command));

test("commands are found in the documents", () => {
  expect(shown.map(({ command }) => command)).toEqual(
    expect.arrayContaining(["pulumi up", "npx contrast-runtime status", "contrast-runtime measure verity rootfs.img"]),
  );
});

test.each(own)("$document: $command", async ({ line }) => {
  await readByDefinition(line);
});

test.each(others)("$document: $command is run by a test", ({ document, heading, command }) => {
  if (document === page && isFollowed(heading)) return;
  if (taken.some((each) => each.document === document && command.startsWith(each.beginning))) return;
  if (ofExamples.includes(command)) return;
  const entry = madeOf.find(([pattern]) => pattern.test(command));
  expect(entry, "let a test run its shownWords").toBeDefined();
});

test.each(taken)("$document shows one command that begins with $beginning", ({ document, beginning }) => {
  expect(shownWords(document, beginning)).not.toEqual([]);
});

test.each(madeOf)("%s is shown, and what it is made of is run by %s", (pattern, file, word) => {
  expect(shown.some(({ command }) => pattern.test(command))).toBe(true);
  expect(existsSync(join(packageRoot, file))).toBe(true);
  expect(text(file)).toContain(word);
});

test("what the page shows is followed, but for what only closed networks need", () => {
  const headings = fences(text(page)).flatMap(({ language, heading }) => (language === "sh" ? [heading] : []));
  expect([...new Set(headings)].filter((heading) => !isFollowed(heading))).toEqual(["Closed networks"]);
});

describe("commands in sentences", () => {
  const spans = documents.flatMap((document) =>
    [...text(document).matchAll(/`((?:npx )?contrast-runtime [a-z][^`\n]*|npm run (?:lock|image) -- [^`\n]*)`/g)]
      .map(([, command = ""]) => ({ document, command, line: ownWords(command.replace(/ ….*$/, "")) ?? [] }))
      .filter(({ command, line }) => !command.includes("…") && line.some((word) => word.startsWith("--"))),
  );

  test("are found", () => expect(spans.length).toBeGreaterThan(3));
  test.each(spans)("$document: $command", async ({ line }) => {
    if (!line.includes("--help")) await readByDefinition(line);
  });
});

test("what a command prints is set only if it succeeded", () => {
  // In place of an argument, a failure would be an empty one.
  expect(shown.map(({ command }) => command).filter((command) => command.includes("$("))).toEqual([]);
});

test("the page says into which file its YAML goes", () => {
  const nowhere = fences(text(page)).filter(({ language, file }) => language === "yaml" && file === undefined);
  expect(nowhere).toEqual([]);
});

test("plugins are installed from files in the versions that the programs use", () => {
  const [kubernetes, command] = [pluginVersion("kubernetes"), pluginVersion("command")];
  expect(text(page)).toContain(
    `pulumi plugin install resource kubernetes ${kubernetes} --file ARCHIVE\`, likewise \`command\` ${command} `,
  );
});

describe("a wrong command is found", () => {
  test.each([
    "contrast-runtime lock kata-release --platform metal-qemu-snp",
    "contrast-runtime lock kata-release --platform metal-qemu-sno --kata-version 4.1.0",
    "contrast-runtime render --stack x --output y --prune",
    "contrast-runtime measure verity",
  ])("%s", async (command) => {
    await expect(readByDefinition(ownWords(command) ?? [])).rejects.toThrow(/./);
  });
});
