import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { candidates } from "../../../../tools/cli/completion.ts";
import { program } from "../../../../tools/cli/main.ts";

const root = await program();
const complete = (...words: string[]) => candidates(root, words).map(({ word }) => word);

test("verbs, their commands, their options and the values that these allow", () => {
  expect(complete("ro")).toEqual(["rollout"]);
  expect(complete("lo")).toEqual(["lock", "local-cluster"]);
  expect(complete("")).toEqual([...root.commands.map((verb) => verb.name()), "help"]);
  expect(complete("help", "measure", "s")).toEqual(["snp"]);
  expect(complete("measure", "")).toContain("verity");
  expect(complete("completion", "")).toEqual(["bash", "zsh", "fish"]);
  expect(complete("status", "")).toEqual(["--group", "--namespace", "--json", "--watch", "--help"]);
  expect(complete("lock", "kata-release", "--fl")).toEqual(["--flavour"]);
  expect(complete("lock", "kata-release", "--flavour", "kata-")).toEqual(["kata-go", "kata-rs"]);
  expect(complete("lock", "kata-release", "--flavour=kata-")).toEqual(["--flavour=kata-go", "--flavour=kata-rs"]);
  // As bash hands it over.
  expect(complete("lock", "kata-release", "--flavour", "=", "kata-")).toEqual(["kata-go", "kata-rs"]);
  expect(complete("lock", "kata-release", "--flavour", "=")).toEqual(["contrast-go", "kata-go", "kata-rs", "none"]);
});

test("a value is not taken for a command, and what only the user knows is left to the shell", () => {
  expect(complete("image", "--payload", "push", "--")).toContain("--push");
  expect(complete("image", "push", "--")).toContain("--registry");
  expect(complete("rollout", "--group", "")).toEqual([]);
  expect(complete("measure", "verity", "")).toEqual([]);
  expect(complete("local-cluster", "exec", "--", "l")).toEqual([]);
});

describe("in a real shell", () => {
  let directory: string;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), "completion-"));
    const file = join(directory, "contrast-runtime");
    writeFileSync(file, `#!/bin/sh\nexec '${process.execPath}' '${resolve("tools/cli/main.ts")}' "$@"\n`);
    chmodSync(file, 0o755);
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  const shell = (name: string, script: string) => {
    const env = { ...process.env, PATH: `${directory}${delimiter}${process.env.PATH}`, HOME: directory };
    const { stdout, stderr } = spawnSync(name, ["-c", script], { encoding: "utf8", env });
    expect(stderr).toBe("");
    return stdout.replace(/\n$/, "").split("\n");
  };
  /** Loads the script as the user's startup file does, and asks for each line as bash does when TAB is pressed. */
  const bash = (...lines: string[][]) => {
    const asked = lines.map((words) => {
      const typed = words.map((word) => `'${word}'`).join(" ");
      return `COMP_WORDS=(contrast-runtime ${typed}) COMP_CWORD=${words.length}; _contrast_runtime contrast-runtime; echo "\${COMPREPLY[@]}"`;
    });
    return shell("bash", ["source <(contrast-runtime completion bash)", ...asked].join("\n"));
  };

  test("bash completes verbs, options and values", () => {
    const said = bash(
      ["ro"],
      ["lock", ""],
      ["lock", "files", "--platform", "=", "metal-qemu-t"],
      ["measure", "igvm", ""],
    );
    expect(said).toEqual([
      "rollout",
      "kata-release oci-image files from-node missing fetch help",
      "metal-qemu-tdx metal-qemu-tdx-gpu",
      "",
    ]);
  }, 300_000);

  test("fish reads a description behind each word", () => {
    const [line] = shell("sh", "contrast-runtime complete fish -- roll");
    expect(line).toBe("rollout\twait until every node of a group serves the group's runtimes");
  });
});
