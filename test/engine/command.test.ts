import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { until } from "../until.ts";
import { type EngineProject, engineProject } from "./harness.ts";

const program = (args: string, extra = "") => `
import * as pulumi from "@pulumi/pulumi";
import { Command } from "@pulumi/command/local/command.js";
import { runOutput } from "@pulumi/command/local/run.js";
const command = new Command("it", ${args});
export const stdout = command.stdout;
${extra}
`;

let project: EngineProject;
beforeEach(async () => {
  project = await engineProject({ program: "" });
});
afterEach(() => project.remove());

const file = (name: string) => join(project.home, name);
const exists = async (path: string) => existsSync(path);

describe("local.Command", () => {
  test("creates, leaves alone, updates with its update verb, replaces on a trigger and deletes", async () => {
    const log = file("log");
    const verbs = (change: string) =>
      program(
        `{ create: "echo create >>${log}; echo hello", update: "echo update $PULUMI_COMMAND_STDOUT >>${log}; echo updated", delete: "echo delete $PULUMI_COMMAND_STDOUT >>${log}", ${change} }`,
      );
    await project.write(verbs('environment: { A: "1" }, triggers: ["x"]'));
    expect(await project.plan()).toMatchObject([{ op: "create" }]);
    expect(existsSync(log)).toBe(false);
    await project.mustWork(project.up());
    expect(await project.outputs()).toEqual({ stdout: "hello" });

    expect((await project.preview("--expect-no-changes")).code).toBe(0);
    await project.mustWork(project.up("--expect-no-changes"));

    await project.write(verbs('environment: { A: "2" }, triggers: ["x"]'));
    expect(await project.plan()).toMatchObject([
      { op: "update", detailedDiff: { "environment.A": { kind: "update" } } },
    ]);
    await project.mustWork(project.up());
    expect(await project.outputs()).toEqual({ stdout: "updated" });

    await project.write(verbs('environment: { A: "2" }, triggers: ["y"]'));
    expect(await project.plan()).toMatchObject([
      { op: "replace", detailedDiff: { "triggers[0]": { kind: "update-replace" } } },
    ]);
    await project.mustWork(project.up());
    await project.mustWork(project.destroy());
    expect(readFileSync(log, "utf8").trim().split("\n")).toEqual([
      "create",
      "update hello",
      "create",
      "delete updated",
      "delete hello",
    ]);
  });

  test("shows each line of output while it runs, by the stream that logging names", async () => {
    await project.write(program('{ create: "echo to-out; echo to-err >&2", logging: "stderr" }'));
    const { stdout } = await project.mustWork(project.up());
    expect(stdout).toMatch(/local:Command it .*to-err/);
    expect(stdout).not.toMatch(/local:Command it .*to-out/);
  });

  test("fails with exit status, command and output, and tries again next time", async () => {
    const flag = file("flag");
    await project.write(program(`{ create: "echo because >&2; test -e ${flag} && echo now" }`));
    const failed = await project.up();
    expect(failed.code).not.toBe(0);
    expect(failed.stdout + failed.stderr).toMatch(/exit status 1: running "echo because >&2; .*":\s*because/s);
    await project.write(program(`{ create: "touch ${flag}; echo because >&2; test -e ${flag} && echo now" }`));
    await project.mustWork(project.up());
    expect(await project.outputs()).toEqual({ stdout: "now" });
  });

  test("ends with an interrupted update", async () => {
    const pid = file("pid");
    await project.write(program(`{ create: "echo $$ >${pid}; exec sleep 1000" }`));
    const { code, stdout } = await project.interrupted(() => exists(pid), "up", "--yes", "--skip-preview");
    expect(code).not.toBe(0);
    expect(stdout).toContain("creating failed");
    expect(existsSync(`/proc/${readFileSync(pid, "utf8").trim()}`)).toBe(false);
  });

  test("is waited for in spite of an interrupt as long as a process lives that its shell started", async () => {
    const [pid, flag] = [file("pid"), file("flag")];
    // As dash does with the last of several commands: the shell stays, and is all that the interrupt ends.
    const waits = `while ! test -e ${flag}; do sleep 0.1; done`;
    await project.write(program(`{ create: "echo $$ >${pid}.new; sh -c 'mv ${pid}.new ${pid}; ${waits}'; true" }`));
    let ended = false;
    const interrupted = project
      .interrupted(() => exists(pid), "up", "--yes", "--skip-preview")
      .finally(() => {
        ended = true;
      });
    const shell = await until("the command to run", async () => existsSync(pid) && readFileSync(pid, "utf8").trim());
    await until("the shell to be killed", async () => !existsSync(`/proc/${shell}`));
    expect(ended).toBe(false);
    writeFileSync(flag, "");
    expect((await interrupted).code).not.toBe(0);
  });

  test("passes stdin, directory and interpreter", async () => {
    await project.write(
      program('{ create: "cat; pwd", stdin: "from stdin ", dir: "/usr", interpreter: ["sh", "-ec"] }'),
    );
    await project.mustWork(project.up());
    expect(await project.outputs()).toEqual({ stdout: "from stdin /usr" });
  });

  test("keeps secret inputs out of the state file, and does not take its output for a secret because of them", async () => {
    await project.write(program('{ create: "echo got it", environment: { TOKEN: pulumi.secret("hush-hush") } }'));
    const { stdout } = await project.mustWork(project.up("--show-full-output"));
    expect(stdout).toMatch(/stdout: "got it"/);
    expect(await project.exported()).not.toContain("hush-hush");
    expect((await project.preview("--expect-no-changes")).code).toBe(0);
  });

  test("never ends on a line of more than 64 KiB, so none of ours is as long: the stand-in fails instead", async () => {
    const printing = (length: number) => program(`{ create: "head -c ${length} /dev/zero | tr '\\\\0' x; echo" }`);
    await project.write(printing(65_000));
    await project.mustWork(project.up());
    await project.write(printing(70_000));
    const { code, stdout } = await project.up();
    expect(code).not.toBe(0);
    expect(stdout).toContain("a line of 70000 characters");
  });

  test("refuses an argument of the wrong type before anything runs", async () => {
    await project.write(program("{ create: 5 as unknown as string }"));
    const { code, stdout, stderr } = await project.preview();
    expect(code).not.toBe(0);
    expect(stdout + stderr).toMatch(/create.*must be a 'string'; got 'float64'/);
  });
});

describe("local.run", () => {
  test("runs in previews too", async () => {
    await project.write(
      program("{}", 'export const ran = runOutput({ command: "echo $A", environment: { A: "in preview" } }).stdout;'),
    );
    const { stdout } = await project.mustWork(project.preview());
    expect(stdout).toMatch(/ran\s*: "in preview"/);
  });
});
