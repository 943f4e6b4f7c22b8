import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  binWords,
  pluginInterpreter,
  stackCommand,
  stackInterpreter,
  stackVerb,
  stackVerbs,
} from "../../../runtime/stack-commands.ts";

test("a command has its verb and its words back, whatever they are", () => {
  const words = fc.array(fc.string({ unit: "grapheme" }).filter((word) => !/[\0\n]/.test(word)));
  fc.assert(
    fc.property(fc.constantFrom(...stackVerbs), words, (verb, given) => {
      const text = stackCommand(verb, ...given);
      expect(stackVerb(text, stackInterpreter)).toBe(verb);
      expect(stackVerb(text, pluginInterpreter)).toBe(verb);
      expect(binWords("contrast-runtime", [text])).toEqual([...verb.split(" "), ...given]);
    }),
  );
});

test("what a person gives the bin is taken as it is", () => {
  for (const words of [["status", "--group", "a b"], ["a b"], ["rollout"], []])
    expect(binWords("/a/bin/contrast-runtime", words)).toEqual(words);
});

const shell = `exec node -e 'import("contrast-runtime/cli")' contrast-runtime`;

test("commands of releases before, which a shell ran, are known as well, and their words still understood", () => {
  expect(stackVerb("contrast-runtime rollout --group a", undefined)).toBe("rollout");
  expect(stackVerb(`${shell} local-cluster ensure --name a`, undefined)).toBe("local-cluster ensure");
  const words = ["rollout", "--group", "a"];
  expect(binWords("contrast-runtime", words)).toEqual(words);
});

test.each([
  undefined,
  ["sh", "-c"],
  [...stackInterpreter, "more"],
  ["node", "-e", 'import("elsewhere")', "contrast-runtime"],
])("with the interpreter %j, a component's text does something else", (interpreter) => {
  expect(stackVerb("rollout --group a", interpreter)).toBeUndefined();
});

test("nor does a shell's text mean the same without a shell", () => {
  expect(stackVerb("contrast-runtime rollout", stackInterpreter)).toBeUndefined();
});

const ofOwn = ["rollout --group a; id", "rollouts", "rollout\nid", "rollout $(id)", "status", ""];
test.each(ofOwn)("%j is none that a component gives its interpreter", (text) => {
  expect(stackVerb(text, stackInterpreter)).toBeUndefined();
});

test.each([
  "contrast-runtime rollout --group a; id",
  `${shell} rollout; id`,
  `exec node -e 'import("contrast-runtime/cli"); import("elsewhere")' contrast-runtime rollout`,
  `exec node -e 'import("elsewhere")' contrast-runtime rollout`,
  `node -r /tmp/x -e 'import("contrast-runtime/cli")' contrast-runtime rollout`,
  "contrast-runtime rollout --group $(id)",
  "contrast-runtime rollout --group `id`",
  'contrast-runtime rollout --group "$HOME"',
  "contrast-runtime rollout\nid",
  "contrast-runtime rollout --group 'a\n'",
  "contrast-runtime rollout --group 'a",
  "contrast-runtime rollout --group a\\ b",
  "contrast-runtime rollout > /etc/passwd",
  "contrast-runtime rollout & id",
  "contrast-runtime rollout ~ *",
  "PATH=/tmp contrast-runtime rollout",
  "/tmp/contrast-runtime rollout",
  "contrast-runtime rollouts",
  "contrast-runtime local-cluster exec --name a --node b -- id",
  "contrast-runtime",
  "",
])("%j is none that a component ever wrote for a shell", (text) => {
  expect(stackVerb(text, undefined)).toBeUndefined();
});

describe("a stack of a program in another language runs the commands of", () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "contrast-plugin-"));
    mkdirSync(join(root, "project", "program"), { recursive: true });
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  const project = (text: string) => writeFileSync(join(root, "project", "Pulumi.yaml"), text);
  /** A package whose bin says where it is and what it was asked for. */
  const install = (...place: string[]) => {
    const folder = join(root, ...place);
    mkdirSync(join(folder, "tools", "cli"), { recursive: true });
    writeFileSync(join(folder, "package.json"), '{ "name": "contrast-runtime", "type": "module" }');
    const said = JSON.stringify(place.join("/"));
    writeFileSync(join(folder, "tools", "cli", "bin.mjs"), `console.log(${said}, ...process.argv.slice(1));`);
  };
  const [, ...words] = pluginInterpreter;
  const ran = () =>
    execFileSync(process.execPath, [...words, "rollout --group a"], {
      cwd: join(root, "project", "program"),
      env: { ...process.env, PULUMI_HOME: join(root, "home") },
      encoding: "utf8",
      stdio: "pipe",
    }).trim();

  test("the folder that the project names", () => {
    install("clone");
    install("home", "plugins", "resource-contrast-runtime-v9.0.0");
    for (const entry of [
      "../clone",
      "'../clone'",
      "../clone/pulumi-resource-contrast-runtime",
      "\n    source: ../clone",
    ]) {
      project(`name: a\nruntime: yaml\npackages:\n  contrast-runtime: ${entry}\n  other: 1.0.0\n`);
      expect(ran(), entry).toBe("clone contrast-runtime rollout --group a");
    }
  });

  test("the newest that the engine installed, also where the project names a repository", () => {
    install("home", "plugins", "resource-contrast-runtime-v0.9.0");
    install("home", "plugins", "resource-github.com_somebody_contrast-runtime.git-v0.10.0");
    mkdirSync(join(root, "home", "plugins", "resource-contrast-runtime-v0.11.0"));
    for (const entry of ["", "packages:\n  contrast-runtime: github.com/somebody/contrast-runtime@0.10.0\n"]) {
      project(`name: a\nruntime: yaml\n${entry}`);
      expect(ran()).toContain("_contrast-runtime.git-v0.10.0 contrast-runtime rollout");
    }
  });

  test("no other: who has none is told what to run", () => {
    project("name: a\nruntime: yaml\n");
    expect(ran).toThrow(/neither in Pulumi\.yaml nor among the engine's plugins\. Run: pulumi install/);
  });
});
