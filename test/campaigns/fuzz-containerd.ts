// fuzz-containerd.ts [SECONDS PER CONTAINERD, default 120]: real containerds read generated configurations before and
// after an edit, until the time is up. Each is edited with nothing else changed, or refused with a Refusal.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { editConfiguration } from "../../node-installer/containerd/edit.ts";
import type { Located } from "../../node-installer/containerd/locate.ts";
import { validateConfiguration } from "../../node-installer/containerd/validate.ts";
import { versionInOutput } from "../../node-installer/containerd/version.ts";
import { createNodeHost } from "../../node-installer/host/node-host.ts";
import { containerdVersions } from "../../runtime/containerd-versions.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { containerdPrograms } from "../../tools/programs/pinned.ts";
import { configuration } from "../unit/node-installer/containerd/configurations.ts";
import { entryOf } from "../unit/node-installer/containerd/entries.ts";

const [seconds = "120"] = process.argv.slice(2);
const directory = mkdtempSync(join(tmpdir(), "fuzz-containerd-"));
const host = createNodeHost({ root: "/" });
/** Its files exist on every machine, because validation looks for them. */
const entry = {
  ...entryOf("aks-clh-snp", "0123abcd", true).entry,
  runtimePath: "/bin/sh",
  options: { ConfigPath: "/etc/passwd" },
};
const entries = [{ handler: "contrast-cc-aks-clh-snp-0123abcd", entry }];

for (const minor of containerdVersions) {
  // Its own directory: when the time is up, the last run continues for a moment.
  const file = join(directory, `${minor}.toml`);
  const binary = join(await containerdPrograms(minor, toStderr), "containerd");
  const version = versionInOutput(spawnSync(binary, ["--version"], { encoding: "utf8" }).stdout) ?? "";
  const located: Located = {
    distribution: "containerd",
    kind: "root",
    file,
    configuration: file,
    templateBase: undefined,
    unit: "containerd.service",
    socket: "",
    restart: "systemctl",
    binary,
    version,
    dataDirectories: [],
    templates: [],
    agentFiles: [],
  };
  const outcomes = new Map<string, number>();
  const property = fc.asyncProperty(configuration([1, 2, 3, 4]), async ({ text }) => {
    let outcome = "served";
    writeFileSync(file, text);
    try {
      const context = { file, kind: "root", containerdVersion: version } as const;
      const next = editConfiguration(Buffer.from(text), entries, context);
      await validateConfiguration(host, located, next, entries);
      writeFileSync(file, next ?? "");
      const back = editConfiguration(next, [], context);
      await validateConfiguration(host, located, back, []);
      if (back?.toString() !== text) throw new Error("undoing the edit does not restore the original bytes");
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      outcome = error.code === "validation-failed" ? `${error.code}: ${error.message}` : error.code;
    }
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  });
  const result = await fc.check(property, {
    numRuns: Number.POSITIVE_INFINITY,
    interruptAfterTimeLimit: Number(seconds) * 1000,
    endOnFailure: true,
  });
  const wrong = result.failed && !result.interrupted;
  console.log(`${wrong ? "FAILED" : "ok    "} containerd ${version}:`);
  for (const [outcome, count] of [...outcomes].sort(([, a], [, b]) => b - a))
    console.log(`  ${count} ${outcome.slice(0, 300)}`);
  if (wrong) {
    console.log(fc.defaultReportMessage(result));
    process.exitCode = 1;
  }
}
rmSync(directory, { recursive: true, force: true });
