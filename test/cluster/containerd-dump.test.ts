import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { containerdVersions } from "../../runtime/containerd-versions.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { containerdPrograms } from "../../tools/programs/pinned.ts";
import { refusedConfigurations } from "../fakes/refused-configurations.ts";

// What the unit tests' containerd refuses, real ones refuse.

const directory = mkdtempSync(join(tmpdir(), "containerd-dump-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe.each([...containerdVersions])("containerd %s refuses", (minor) => {
  let binary: string;
  beforeAll(async () => {
    binary = join(await containerdPrograms(minor, toStderr), "containerd");
  });

  const dump = (text: string) => {
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
});
