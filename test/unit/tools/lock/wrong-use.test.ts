import { expect, test, vi } from "vitest";
import { main } from "../../../../tools/cli/main.ts";
import { projectDirectory } from "../../../../tools/files/project.ts";

const asked = vi.hoisted(() => vi.fn());
vi.mock("../../../../tools/lock/sources.ts", async (original) => {
  const { lockFrom } = await original<typeof import("../../../../tools/lock/sources.ts")>();
  return { lockFrom: asked.mockImplementation(lockFrom) };
});

// In one of the product's own folders, the manifest would be taken for a part of the program.
test("manifests are written to payloads/ at the top of the project, unless told otherwise", async () => {
  const errors = vi.spyOn(console, "error").mockImplementation(() => {});
  try {
    await main([...files, "--name=a", "--from=/nowhere"]);
    expect(asked).toHaveBeenCalledWith(
      expect.anything(),
      expect.objectContaining({ output: `${projectDirectory}/payloads/a.json` }),
      expect.anything(),
    );
  } finally {
    errors.mockRestore();
  }
});

const release = ["lock", "kata-release", "--platform=metal-qemu-snp", "--kata-version=4.2.0"];
const old = ["lock", "kata-release", "--platform=metal-qemu-snp", "--kata-version=3.30.0"];
const files = ["lock", "files", ...release.slice(2)];

test.each<[args: string[], code: number, said: string]>([
  [["lock", "fetch"], 2, "Required option '--manifest <file>' not specified"],
  [["lock", "fetch", "more"], 2, "Required option '--manifest <file>' not specified"],
  [
    ["lock", "fetch", "--manifest=a", "more"],
    2,
    "Too many arguments for 'fetch'. Expected 0 arguments but got 1: more.",
  ],
  [["lock", "fetch", "--manifest=/nowhere.json"], 1, "/nowhere.json cannot be read: no such file or directory"],
  [["lock", "fetch", "--manifest=README.md"], 1, "README.md is not JSON: Unexpected token"],
  [["lock", "tape"], 2, "Unknown command 'tape'.\nSee: contrast-runtime lock --help"],
  [["lock", "--platform", "local", "files"], 2, "--platform is an option of kata-release, oci-image, files, from-node"],
  [[...release, "--via=ssh node"], 2, "Unknown option '--via'"],
  [[...release, "--ca=/nowhere.pem"], 1, "The CA's file /nowhere.pem cannot be read: no such file or directory."],
  [[...release, "--mirror=mirror"], 2, '--mirror "mirror" is no URL: expected https://… or http://….'],
  [
    ["lock", "kata-release", "--platform=metal-qemu-snp", "--kata-version=v4.1.0"],
    2,
    '--kata-version "v4.1.0" is no Kata release: expected such as 4.1.0, without the "v".',
  ],
  ...["4.1", "latest"].map((version): [string[], number, string] => [
    ["lock", "kata-release", "--platform=metal-qemu-snp", `--kata-version=${version}`],
    2,
    `--kata-version "${version}" is no Kata release: expected such as 4.1.0.`,
  ]),
  [
    [...release, "--flavour=contrast-go"],
    2,
    "Kata's releases have no contrast-go: Contrast's patched build of Kata's Go runtime is in the image of Contrast's node installer. Take it from there with \"lock oci-image",
  ],
  [
    [...release, "--sha256=sha256:12"],
    2,
    "Option '--sha256 <hex>' argument 'sha256:12' is invalid. It must be 64 hex digits.",
  ],
  [[...release, `--sha256=sha256:${"A".repeat(64)}`, "--mirror=mirror"], 2, '--mirror "mirror" is no URL'],
  [[...release, "--name=../x"], 2, '--name "../x": '],
  [[...release, "--file=kernel"], 2, "Option '--file <role=path>' argument 'kernel' is invalid. It must be ROLE=PATH."],
  [
    [...release, "--file=kernal=/x"],
    2,
    `Option '--file <role=path>' argument 'kernal=/x' is invalid. "kernal" is none of`,
  ],
  [
    files,
    2,
    "files needs --from DIRECTORY, or --file ROLE=PATH for each file.\nSee: contrast-runtime lock files --help",
  ],
  [old, 1, "Kata 3.30.0 (kata-go) has known holes and was not locked. GHSA-fmg6-v47x-52wr (CVE-2026-77176): The host"],
  [[...old, "--acknowledge=CVE-2026-50540"], 1, "Kata 3.30.0 (kata-go) has known holes"],
  [[...old, "--acknowledge=CVE-2026-77176", "--mirror=m"], 2, '--mirror "m" is no URL'],
  [
    [...release, "--acknowledge=GHSA-fmg6-v47x-52wr"],
    2,
    '--acknowledge "GHSA-fmg6-v47x-52wr" does not apply to Kata 4.2.0 (kata-go) on metal-qemu-snp: remove it.',
  ],
  [
    [...old, "--acknowledge=CVE-2026-7717"],
    2,
    '--acknowledge "CVE-2026-7717" is no advisory that is known here. Did you mean CVE-2026-77176?',
  ],
  // What is at --output does not matter before there is something to write there.
  [
    ["lock", "from-node", ...release.slice(2), "--via=/nowhere", "--root=/x", "--output=README.md"],
    1,
    "/nowhere cannot be started: spawn /nowhere ENOENT.",
  ],
  [["image", "--ca=/nowhere.pem"], 1, "The CA's file /nowhere.pem cannot be read: no such file or directory."],
  [[...release, "--sha256=zz"], 2, "Option '--sha256 <hex>' argument 'zz' is invalid. It must be 64 hex digits."],
  [["image", "--push=nope"], 2, "Option '--push <target>' argument 'nope' is invalid. It must be registry/repository"],
  [["image", "--tag=1"], 2, "Unknown option '--tag'"],
])("one sentence and an exit code: %j", async (args, code, said) => {
  const [out, err] = [vi.spyOn(console, "log"), vi.spyOn(console, "error")];
  for (const spy of [out, err]) spy.mockImplementation(() => {});
  try {
    expect(await main(args)).toBe(code);
    const printed = err.mock.calls.flat().join("\n");
    expect(printed.slice(0, said.length)).toBe(said);
    expect(printed).not.toMatch(/\n\s+at /);
  } finally {
    for (const spy of [out, err]) spy.mockRestore();
  }
});
