import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { main } from "../../../../tools/cli/main.ts";
import { missingPayloads } from "../../../../tools/lock/missing.ts";

let directory: string;
beforeEach(async () => {
  said = [];
  directory = await mkdtemp(join(tmpdir(), "missing-"));
  await mkdir(join(directory, "payloads"));
});
afterEach(() => rm(directory, { recursive: true }));

async function stack(name: string, ...runtimes: object[]): Promise<string> {
  const file = join(directory, `Pulumi.${name}.yaml`);
  const config = { "contrast-runtime:groups": { workers: { distribution: "containerd", runtimes } } };
  await writeFile(file, JSON.stringify({ config }));
  return file;
}
let said: string[];
const missing = (...files: string[]) => missingPayloads(files, (line) => said.push(line), directory);

test("what is named and not there is locked once, with what its runtimes put up with", async () => {
  await writeFile(join(directory, "payloads/metal-qemu-snp-kata-go-4.1.0.json"), "{}");
  const rs = "payloads/metal-qemu-snp-gpu-kata-rs-4.3.0.json";
  const files = [
    await stack("a", { payload: "payloads/metal-qemu-snp-kata-go-4.1.0.json" }, { payload: rs }),
    await stack(
      "b",
      { payload: rs, acknowledgedAdvisories: ["GHSA-x"] },
      { payload: "payloads/metal-qemu-tdx-kata-go-4.3.0.json" },
    ),
  ];
  const found = await missing(...files);
  expect(said).toEqual([]);
  expect(found).toEqual([
    {
      platform: "metal-qemu-snp-gpu",
      flavour: "kata-rs",
      kataVersion: "4.3.0",
      output: join(directory, rs),
      acknowledge: ["GHSA-x"],
    },
    {
      platform: "metal-qemu-tdx",
      flavour: "kata-go",
      kataVersion: "4.3.0",
      output: join(directory, "payloads/metal-qemu-tdx-kata-go-4.3.0.json"),
      acknowledge: [],
    },
  ]);
});

test.each([
  "payloads/ours.json",
  "payloads/metal-qemu-snp-contrast-go-1.24.0.json",
  "payloads/metal-qemu-snp-kata-go-4.json",
  ".local/payloads/local/manifest.json",
])("%s says no release of Kata: it is told, and nothing is locked for it", async (payload) => {
  const file = await stack("a", { payload });
  expect(await missing(file)).toEqual([]);
  expect(said).toEqual([`${payload} (${file}) is not there, and its name says no release of Kata: lock it by itself.`]);
});

test("a file that is none of a stack's is refused", async () => {
  const file = join(directory, "values.yaml");
  await writeFile(file, "replicas: 1\n");
  await expect(missing(file)).rejects.toThrow("has no groups whose runtimes name payloads");
});

test.each<[file: string, content: string, said: RegExp]>([
  ["none.yaml", "", /^The stack's file .*none\.yaml cannot be read: no such file or directory\.$/],
  ["broken.yaml", "config: [", /^.*broken\.yaml is no YAML: /],
])("%s is refused in a sentence that names it", async (name, content, said) => {
  const file = join(directory, name);
  if (content !== "") await writeFile(file, content);
  await expect(missing(file)).rejects.toThrow(said);
});

/** What the command prints on standard output and standard error, and its exit code. */
async function command(...words: string[]) {
  const [log, error] = [vi.spyOn(console, "log"), vi.spyOn(console, "error")];
  for (const spy of [log, error]) spy.mockImplementation(() => {});
  try {
    const code = await main(["lock", "missing", ...words]);
    const [out, err] = [log, error].map(({ mock }) => mock.calls.flat().map(String));
    return { code, out, err: err?.join("\n") };
  } finally {
    for (const spy of [log, error]) spy.mockRestore();
  }
}

test("where nothing is missing, a program reads an empty list and somebody a sentence", async () => {
  const file = await stack("a");
  expect(await command(file, "--json")).toEqual({ code: 0, out: ["[]"], err: "" });
  expect(await command(file)).toMatchObject({ code: 0, out: ["Nothing is missing that can be locked from here."] });
});

test("a payload that needs an option of its own is refused with the command that takes it", async () => {
  const file = await stack("a", { payload: `payloads/metal-qemu-snp-kata-go-3.99.0.json` });
  const { code, err } = await command(file, "--mirror", "http://127.0.0.1:1", "--trusted-root", "root.jsonl");
  expect(code).toBe(1);
  expect(err).toContain("Kata 3.99.0 (kata-go) has known holes and was not locked.");
  expect(err).toContain(
    "--acknowledge, are given by itself: contrast-runtime lock kata-release --platform metal-qemu-snp --flavour kata-go --kata-version 3.99.0",
  );
});
