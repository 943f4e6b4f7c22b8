import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { containerdVersions } from "../../runtime/containerd-versions.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { containerdPrograms } from "../../tools/programs/pinned.ts";
import { refusedConfigurations } from "../fakes/refused-configurations.ts";

// What the unit tests' containerd refuses, real ones refuse.

/** What 1.7 takes although it is not valid TOML, what none takes, and the one file that is only wrong in 1.7. */
const toml = join(import.meta.dirname, "../fixtures/toml");
const only17 = ["dotted-then-header", "esc-comment", "ff-comment", "gbk-comment", "header-and-key-one-line"];
const loadedBy17 = [...only17, "latin1-comment", "leading-zero", "parents-after", "tab-in-string"];
const loadedBy2 = ["parents-after", "tab-in-string", "unquoted-id"];

const directory = mkdtempSync(join(tmpdir(), "containerd-dump-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe.each([...containerdVersions])("containerd %s refuses", (minor) => {
  let binary: string;
  beforeAll(async () => {
    binary = join(await containerdPrograms(minor, toStderr), "containerd");
  });

  const dump = (text: string | Buffer) => {
    const file = join(directory, "config.toml");
    writeFileSync(file, text);
    return spawnSync(binary, ["-c", file, "config", "dump"], { encoding: "utf8" });
  };

  test("nothing of a file without mistakes", () => {
    expect(dump("version = 2\n")).toMatchObject({ status: 0 });
  });

  test.each(Object.entries(refusedConfigurations))("%s", (_name, text) => {
    const { status, stderr } = dump(text);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^containerd: .+$/m);
  });

  test("files as people write them: what our refusals say of 1.7 and 2.x is true", () => {
    const names = readdirSync(toml)
      .map((name) => name.replace(".toml", ""))
      .sort();
    const loaded = names.filter((name) => dump(readFileSync(join(toml, `${name}.toml`))).status === 0);
    expect(loaded).toEqual(minor === "1.7" ? loadedBy17 : loadedBy2);
  });
});
