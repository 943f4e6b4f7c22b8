import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse, stringify } from "smol-toml";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { compareDumps } from "../../node-installer/containerd/dumps.ts";
import { type EditContext, editConfiguration } from "../../node-installer/containerd/edit.ts";
import { versionInOutput } from "../../node-installer/containerd/version.ts";
import { containerdVersions } from "../../runtime/containerd-versions.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { containerdPrograms } from "../../tools/programs/pinned.ts";
import { aks, snp, tdx } from "../unit/node-installer/containerd/entries.ts";

// Programs write containerd's file anew, and real containerds read what is left of ours in it, what an edit makes of it, and
// what stays when ours is taken out: our handlers come and go, and nothing else changes.

const directory = mkdtempSync(join(tmpdir(), "containerd-rewritten-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const file = join(directory, "config.toml");
const old = "io.containerd.grpc.v1.cri";
const adminsFile = `version = 2
# theirs
[plugins."${old}"]
  sandbox_image = "registry.k8s.io/pause:3.9"
  [plugins."${old}".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."${old}".containerd.runtimes.runc.options]
      SystemdCgroup = true
`;
const nothing = { handlers: [], proxyPlugins: [] };
const ours = (...entries: (typeof snp)[]) => ({
  handlers: entries.map(({ handler }) => handler),
  proxyPlugins: entries.flatMap(({ entry }) => entry.proxyPlugin?.name ?? []),
});

describe.each([...containerdVersions])("containerd %s", (minor) => {
  let binary: string;
  let context: EditContext;

  beforeAll(async () => {
    binary = join(await containerdPrograms(minor, toStderr), "containerd");
    const containerdVersion = versionInOutput(spawnSync(binary, ["--version"], { encoding: "utf8" }).stdout) ?? "";
    const known = { placed: ours(snp, tdx, aks).handlers, wanted: [] };
    context = { file, kind: "root", containerdVersion, known };
  });

  const run = (...args: string[]): string => {
    const { status, stdout, stderr } = spawnSync(binary, args, { encoding: "utf8" });
    expect(status, stderr).toBe(0);
    return stdout;
  };
  const dump = (text: string | undefined): string => {
    if (text === undefined) return run("config", "default");
    writeFileSync(file, text);
    return run("-c", file, "config", "dump");
  };
  const edit = (text: string | undefined, entries: (typeof snp)[]) =>
    editConfiguration(text === undefined ? undefined : Buffer.from(text), entries, context)?.toString();
  const fixture = (name: string) => readFileSync(new URL(`../fixtures/rewritten/${name}`, import.meta.url), "utf8");

  const programs: [name: string, rewrite: (text: string) => string][] = [
    ["a program that reads and writes TOML", (text) => stringify(parse(text))],
    ["its own containerd, which prints what it has loaded", dump],
    ["nvidia-ctk", () => fixture("nvidia-ctk.toml")],
    ...(minor === "1.7"
      ? []
      : ([
          [
            "sed, version and ids",
            (text) => text.replace("version = 2", "version = 3").replaceAll(old, "io.containerd.cri.v1.runtime"),
          ],
          [
            "containerd config migrate",
            (text) => {
              writeFileSync(file, text);
              return run("-c", file, "config", "migrate");
            },
          ],
        ] satisfies typeof programs)),
  ];

  test.each(programs)("after %s", (name, rewrite) => {
    const installed = name === "nvidia-ctk" ? [snp] : [snp, aks];
    const text = rewrite(edit(adminsFile, installed) ?? "");
    expect(edit(text, installed)).toBe(text);
    const without = edit(text, []);
    expect(compareDumps(dump(without), dump(text), { entries: installed, removed: nothing })).toEqual([]);
    expect(compareDumps(dump(text), dump(without), { entries: [], removed: ours(...installed) })).toEqual([]);
    const more = edit(text, [...installed, tdx]);
    expect(compareDumps(dump(text), dump(more), { entries: [...installed, tdx], removed: ours(tdx) })).toEqual([]);
    expect(edit(more, [])?.trimEnd()).toBe(without?.trimEnd());
  });

  test("a file that was not there is one for every release", () => {
    const made = edit(undefined, [snp]);
    expect(made).toBe(editConfiguration(undefined, [snp], { ...context, containerdVersion: "1.7.24" })?.toString());
    expect(compareDumps(dump(undefined), dump(made), { entries: [snp], removed: nothing })).toEqual([]);
    expect(edit(made, [])).toBeUndefined();
  });
});
