import { readFileSync } from "node:fs";
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { pathOf } from "../../../../tools/cli/command.ts";
import { main } from "../../../../tools/cli/main.ts";
import { anyValue, commands, enough, root, takingValues, wordsOf } from "./command-lines.ts";

const each = (some: CommandUnknownOpts[]) => some.map((command) => [pathOf(command), command] as const);

let [out, err] = ["", ""];
beforeEach(() => {
  [out, err] = ["", ""];
  vi.spyOn(console, "log").mockImplementation((text) => {
    out += `${text}\n`;
  });
  vi.spyOn(console, "error").mockImplementation((text) => {
    err += `${text}\n`;
  });
});
afterEach(() => vi.restoreAllMocks());

/** A mistake: exit code 2, nothing on standard output, its sentence, where to read on, and no stack. */
async function expectMistake(command: CommandUnknownOpts, words: string[], sentence: string): Promise<void> {
  [out, err] = ["", ""];
  expect({ code: await main([...wordsOf(command), ...words]), out, err }).toEqual({
    code: 2,
    out: "",
    err: `${sentence}\nSee: ${pathOf(command)} --help\n`,
  });
}

describe.each(each(commands))("%s", (path, command) => {
  test.each(["--help", "-h"])("%s names every option, argument and command", async (flag) => {
    expect(await main([...wordsOf(command), flag])).toBe(0);
    expect(err).toBe("");
    expect(out.startsWith(`Usage: ${path} `)).toBe(true);
    const lines = out.split("\n").map((line) => line.trim());
    const named = (term: string) => lines.some((line) => line === term || line.startsWith(`${term} `));
    for (const { flags } of command.options) expect(named(flags), flags).toBe(true);
    for (const sub of command.commands) expect(named(sub.name()), sub.name()).toBe(true);
    for (const argument of command.registeredArguments) expect(named(argument.name()), argument.name()).toBe(true);
    const spoken = out.replace(/\s+/g, " ");
    for (const { argChoices, long } of command.options)
      for (const choice of argChoices ?? []) expect(spoken, long).toContain(`"${choice}"`);
  });

  test("an unknown option is named, and whatever else is missing does not matter", async () => {
    await expectMistake(command, ["--no-such-thing=1"], "Unknown option '--no-such-thing'.");
  });

  test("only the program has a version", async () => {
    if (command === root) {
      expect(await main(["--version"])).toBe(0);
      expect(out).toBe(`${JSON.parse(readFileSync("package.json", "utf8")).version}\n`);
    } else expect(await main([...wordsOf(command), "--version"])).toBe(2);
  });
});

const flags = ({ options }: CommandUnknownOpts) =>
  options.filter(({ required, long }) => !required && long !== "--version");

test.each(each(commands.filter((command) => flags(command).length > 0)))(
  "flags of %s: twice is a mistake",
  async (_path, command) => {
    for (const { long = "" } of flags(command))
      await expectMistake(command, [long, ...enough(command), long], `${long} is given twice.`);
  },
);

describe.each(each(commands.filter((command) => takingValues(command).length > 0)))(
  "options of %s",
  (_path, command) => {
    /** Each option's own word, and what else is required. */
    const options = takingValues(command).map((option) => {
      const long = option.long ?? "";
      const others = enough(command).filter((word) => !word.startsWith(`${long}=`));
      return { option, long, others };
    });

    test("misspelt: says what was meant", async () => {
      for (const { long, others } of options)
        await expectMistake(command, [...others, `${long}x=1`], `Unknown option '${long}x': did you mean ${long}?`);
    });

    test("without a value: the next option is not taken for it", async () => {
      for (const { long } of options) {
        const sentence = `${long} has no value: "--help-me" follows. A value that begins so is written ${long}=--help-me.`;
        await expectMistake(command, [long, "--help-me"], sentence);
      }
    });

    test("twice: a mistake, unless help says that it may be repeated", async () => {
      expect(await main([...wordsOf(command), "--help"])).toBe(0);
      const help = out.replace(/\s+/g, " ");
      for (const { option, long, others } of options) {
        const [own = ""] = help.slice(help.indexOf(` ${option.flags} `) + 1).split(/ (?=--[a-z0-9-]+ <)/);
        const word = `${long}=${anyValue(option)}`;
        const another = long === "--kata" ? "--kata=hypervisor.default_vcpus=2" : word;
        if (own.includes("(repeatable)")) await command.parseOptions([word, another]);
        else await expectMistake(command, [word, ...others, word], `${long} is given twice.`);
      }
    });

    test("missing or empty, although required: named", async () => {
      for (const { option, long, others } of options.filter(({ option }) => option.mandatory)) {
        await expectMistake(command, others, `Required option '${option.flags}' not specified`);
        await expectMistake(command, [...others, `${long}=`], `The value of ${long} is empty.`);
      }
    });

    test("another value than the allowed ones: they are listed", async () => {
      for (const { option, long, others } of options.filter(({ option }) => option.argChoices !== undefined)) {
        const allowed = `Allowed choices are ${option.argChoices?.join(", ")}.`;
        const sentence = `Option '${option.flags}' argument 'neither' is invalid. ${allowed}`;
        await expectMistake(command, [...others, long, "neither"], sentence);
      }
    });
  },
);

describe.each(each(commands.filter((command) => command.commands.length > 0)))("commands of %s", (_path, command) => {
  test("misspelt: says what was meant", async () => {
    for (const name of command.commands.map((sub) => sub.name()))
      await expectMistake(command, [`${name}x`], `Unknown command '${name}x': did you mean ${name}?`);
  });

  test("a word of JavaScript's own is none", async () => {
    for (const word of ["constructor", "toString", "__proto__"])
      await expectMistake(command, [word], `Unknown command '${word}'.`);
  });
});

const needingOne = commands.filter((command) => command.commands.length > 0 && command.name() !== "image");
test.each(each(needingOne))("%s alone shows its help, and fails", async (path, command) => {
  expect(await main(wordsOf(command))).toBe(2);
  expect([out, err.split("\n")[0]]).toEqual(["", `Usage: ${path} [options] [command]`]);
});

test.each([
  [["help"], "contrast-runtime"],
  [["help", "--help"], "contrast-runtime"],
  [["help", "lock"], "contrast-runtime lock"],
  [["lock", "help"], "contrast-runtime lock"],
  [["lock", "help", "files"], "contrast-runtime lock files"],
  [["help", "lock", "kata-release"], "contrast-runtime lock kata-release"],
  [["help", "lock", "--help"], "contrast-runtime lock"],
  [["help", "image", "push"], "contrast-runtime image push"],
  [["help", "help"], "contrast-runtime"],
  [["image", "help"], "contrast-runtime image"],
])("%j was asked for: it is no mistake", async (words, path) => {
  expect(await main(words)).toBe(0);
  expect([out.startsWith(`Usage: ${path} `), err]).toEqual([true, ""]);
});

test.each([
  [["help", "nosuch"], "contrast-runtime", "Unknown command 'nosuch'."],
  [["help", "lokc"], "contrast-runtime", "Unknown command 'lokc': did you mean lock?"],
  [["help", "lock", "nosuch"], "contrast-runtime lock", "Unknown command 'nosuch'."],
  [["help", "lock", "file"], "contrast-runtime lock", "Unknown command 'file': did you mean files?"],
  [["lock", "help", "files", "more"], "contrast-runtime lock files", "Unknown command 'more'."],
])("%j: there is no such command to help with", async (words, path, sentence) => {
  expect({ code: await main(words), out, err }).toEqual({
    code: 2,
    out: "",
    err: `${sentence}\nSee: ${path} --help\n`,
  });
});

test.each([
  [["lock", "--help"], "Usage: npm run lock -- [options] [command]"],
  [["lock", "files", "--help"], "Usage: npm run lock -- files [options]"],
  [["help", "lock"], "Usage: contrast-runtime lock [options] [command]"],
])("%j by the clone's script: help names what was typed", async (words, usage) => {
  expect(await main(words, { script: "lock" })).toBe(0);
  expect(out.split("\n")[0]).toBe(usage);
});

test("mistakes name the clone's script, too, but no script of somebody else", async () => {
  expect(await main(["lock", "files", "--platfrom=x"], { script: "lock" })).toBe(2);
  expect(err).toMatch(/\nSee: npm run lock -- files --help\n$/);
  err = "";
  expect(await main(["lock", "files", "--platfrom=x"], { script: "update-payloads" })).toBe(2);
  expect(err).toMatch(/\nSee: contrast-runtime lock files --help\n$/);
});

const takingNoWords = commands.filter((each) => each.commands.length + each.registeredArguments.length === 0);
test.each(each(takingNoWords))("%s takes no words beside its options", async (_path, command) => {
  const sentence = `Too many arguments for '${command.name()}'. Expected 0 arguments but got 1: more.`;
  await expectMistake(command, [...enough(command), "more"], sentence);
});

test("the table of commands names exactly the verbs, and their commands", () => {
  const operations = readFileSync("docs/operations.md", "utf8");
  const section = operations.slice(operations.indexOf("## Commands"));
  const rows = [
    ...section.slice(0, section.indexOf("\n\n", section.indexOf("| --- |"))).matchAll(/^\| `([a-z-]+)`(.*)\|/gm),
  ];
  const told = rows.map(([, verb = "", rest = ""]) => {
    const [, list = ""] = /^(?: with ((?:`[a-z-]+`(?:, )?)+))? \|/.exec(rest) ?? [];
    return [verb, ...[...list.matchAll(/`([a-z-]+)`/g)].map(([, name = ""]) => name)];
  });
  expect(told).toEqual(root.commands.map((verb) => [verb.name(), ...verb.commands.map((sub) => sub.name())]));
});

test("the words of stacks, pipelines and documents are taken as they always were", async () => {
  const spoken = [
    ".github/workflows/deploy.yml",
    ".github/workflows/preview.yml",
    "examples/ci/gitlab-ci.yml",
    "test/golden/dev.yaml",
    "test/golden/fleet.yaml",
    ...["operations", "review", "attestation", "payloads"].map((page) => `docs/${page}.md`),
  ].flatMap((file) =>
    [
      ...readFileSync(file, "utf8").matchAll(
        /^(?:[^#`\n]*\bcontrast-runtime| *(?:create|update|delete):) ((?:[a-z-]+ )+--[^\n`>|#]*)/gm,
      ),
    ].map(([, words = ""]) => words),
  );
  expect(spoken.length).toBeGreaterThan(20);
  for (const text of spoken) {
    const words = text.split(/ 2>| \|\| /)[0]?.match(/'[^']*'|"[^"]*"|\S+/g) ?? [];
    const path = words.slice(
      0,
      words.findIndex((word) => word.startsWith("-")),
    );
    const command = path.reduce<CommandUnknownOpts | undefined>(
      (at, word) => at?.commands.find((sub) => sub.name() === word),
      root,
    );
    expect(command, text).toBeDefined();
    for (const word of words.filter((each) => each.startsWith("--")))
      expect(
        command?.options.map(({ long }) => long),
        text,
      ).toContain(word.replace(/=.*/, ""));
    for (const { long, mandatory } of command?.options ?? []) if (mandatory) expect(words, text).toContain(long);
  }
});
