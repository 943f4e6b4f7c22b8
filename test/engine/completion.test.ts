import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { toStderr } from "../../tools/process/progress.ts";
import { debianFiles } from "../../tools/programs/debian.ts";

/** The scripts of `contrast-runtime completion` in the shells themselves; bash's is in the unit layer, for it is everywhere. */
let directory: string;
let shells: string;

beforeAll(async () => {
  const packages = ["zsh", "zsh-common", "fish", "fish-common", "libpcre2-32-0", "libtinfo6"];
  shells = await debianFiles({ name: "shells", suite: "bookworm", packages }, toStderr);
  directory = mkdtempSync(join(tmpdir(), "completion-"));
  // As docs/operations.md puts a clone's command on PATH.
  execFileSync("sh", ["-c", 'ln -s "$PWD/tools/cli/bin.mjs" ~/contrast-runtime'], { env: { HOME: directory } });
}, 300_000);
afterAll(() => rmSync(directory, { recursive: true }));

/** Runs a script of the shell, and returns the lines that it prints. */
function shell(program: string, options: string[], script: string): string[] {
  const file = join(directory, "script");
  writeFileSync(file, script);
  const env = {
    PATH: [directory, dirname(process.execPath), process.env.PATH].join(delimiter),
    HOME: directory,
    LD_LIBRARY_PATH: join(shells, "usr/lib/x86_64-linux-gnu"),
  };
  const said = execFileSync(join(shells, program), [...options, file], { encoding: "utf8", env });
  return said.trimEnd().split("\n");
}

test("fish completes verbs with what they do, values, and files where only the user knows", () => {
  const lines = [
    "contrast-runtime completion fish | source",
    `set fish_function_path ${shells}/usr/share/fish/functions`,
    "complete -C 'contrast-runtime lock fi'",
    "complete -C 'contrast-runtime lock files --platform metal-qemu-t'",
    "complete -C 'contrast-runtime measure igvm package.j'",
  ];
  expect(shell("usr/bin/fish", ["--no-config"], lines.join("\n"))).toEqual([
    "files\tFiles of this machine.",
    "metal-qemu-tdx",
    "metal-qemu-tdx-gpu",
    "package.json",
  ]);
});

test("zsh completes verbs with what they do, values, and files where only the user knows", () => {
  const functions = readdirSync(join(shells, "usr/share/zsh/functions"), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => `${shells}/usr/share/zsh/functions/${name}`);
  const ask = (...words: string[]) =>
    `words=(contrast-runtime ${words.map((word) => `'${word}'`).join(" ")}) CURRENT=${words.length + 1}; _contrast_runtime`;
  const lines = [
    `fpath=(${functions.join(" ")})`,
    `module_path=(${shells}/usr/lib/x86_64-linux-gnu/zsh/5.9)`,
    "autoload -U compinit; compinit -u -D",
    "source <(contrast-runtime completion zsh)",
    "print $_comps[contrast-runtime]",
    // What the completion system would be told; it works in a terminal only.
    "_describe() { print -l -- $found }",
    "_files() { print files }",
    ask("lock", "fi"),
    ask("lock", "files", "--platform", "metal-qemu-t"),
    ask("measure", "igvm", ""),
  ];
  expect(shell("usr/bin/zsh", ["-f"], lines.join("\n"))).toEqual([
    "_contrast_runtime",
    "files:Files of this machine.",
    "metal-qemu-tdx:",
    "metal-qemu-tdx-gpu:",
    "files",
  ]);
});
