import { expect, test, vi } from "vitest";
import { main as image } from "../../../../tools/image/main.ts";
import { main as lock } from "../../../../tools/lock/main.ts";

const release = ["kata-release", "--platform=metal-qemu-snp", "--kata-version=4.2.0"];
const old = ["kata-release", "--platform=metal-qemu-snp", "--kata-version=3.30.0"];

test.each<[command: typeof lock, args: string[], code: number, said: string]>([
  [lock, [], 2, ""],
  [lock, ["fetch"], 2, "--manifest is missing."],
  [lock, ["fetch", "more"], 2, '"more" was not expected.'],
  [lock, ["fetch", "--manifest=/nowhere.json"], 1, "/nowhere.json cannot be read: ENOENT: no such file or directory"],
  [lock, ["fetch", "--manifest=README.md"], 1, "README.md is no manifest: Unexpected token"],
  [lock, ["tape"], 2, 'The source "tape" is none of kata-release, oci-image, files, from-node.'],
  [lock, [...release, "--via=ssh node"], 2, "--via is not for kata-release."],
  [lock, [...release, "--tag=1"], 2, "Unknown option '--tag'"],
  [lock, [...release, "--ca=/nowhere.pem"], 1, "ENOENT: no such file or directory, open '/nowhere.pem'"],
  [lock, [...release, "--mirror=mirror"], 1, '--mirror "mirror" is no URL: expected https://… or http://….'],
  [
    lock,
    old,
    1,
    "Kata 3.30.0 (kata-go) has known holes and was not locked. GHSA-fmg6-v47x-52wr (CVE-2026-77176): The host",
  ],
  [lock, [...old, "--acknowledge=CVE-2026-50540"], 1, "Kata 3.30.0 (kata-go) has known holes"],
  [lock, [...old, "--acknowledge=CVE-2026-77176", "--mirror=m"], 1, '--mirror "m" is no URL'],
  [
    lock,
    [...release, "--acknowledge=GHSA-fmg6-v47x-52wr"],
    2,
    '--acknowledge "GHSA-fmg6-v47x-52wr" does not apply to Kata 4.2.0 (kata-go) on metal-qemu-snp: remove it.',
  ],
  [
    lock,
    [...old, "--acknowledge=CVE-2026-7717"],
    2,
    '--acknowledge "CVE-2026-7717" is no advisory that is known here. Did you mean CVE-2026-77176?',
  ],
  // What is at --output does not matter before there is something to write there.
  [
    lock,
    ["from-node", ...release.slice(1), "--via=/nowhere", "--root=/x", "--output=README.md"],
    1,
    "/nowhere cannot be started: spawn /nowhere ENOENT.",
  ],
  [image, ["--ca=/nowhere.pem"], 1, "ENOENT: no such file or directory, open '/nowhere.pem'"],
  [image, ["--push=registry"], 1, '--push "registry" must be registry/repository without tag or digest'],
  [image, ["--tag=1"], 2, "Unknown option '--tag'"],
])("one sentence and an exit code: %#", async (command, args, code, said) => {
  const [out, err] = [vi.spyOn(console, "log"), vi.spyOn(console, "error")];
  for (const spy of [out, err]) spy.mockImplementation(() => {});
  try {
    expect(await command(args)).toBe(code);
    const printed = err.mock.calls.flat().join("\n");
    expect(printed.startsWith(said)).toBe(true);
    expect(printed).not.toMatch(/\n\s+at /);
  } finally {
    for (const spy of [out, err]) spy.mockRestore();
  }
});
