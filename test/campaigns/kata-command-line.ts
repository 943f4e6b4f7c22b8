// kata-command-line.ts VERSION=PROGRAM … [--cases N, default 50]: compares the kernel command lines that are predicted
// with those that the real Kata makes of the same files.
//
// A PROGRAM is made of the runtime of that release by whoever runs this; nothing of Kata is here. It is called with the
// path of a configuration file, has LINE_TEE=snp or tdx in its environment instead of hardware, and prints the kernel
// command line that the runtime would pass for a guest with one vCPU, or fails with an error as the runtime would.
//
// For each version: the file of each platform of kata-go as it is rendered, and N files whose settings are random. Where
// a line is predicted it must be the real one; where the real runtime refuses the file nothing may be predicted.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import fc from "fast-check";
import { kataCommandLine, withVcpus } from "../../measure/kata-kernel-command-line.ts";
import { pairs } from "../../runtime/flavours.ts";
import {
  hypervisorOf,
  type KataConfiguration,
  kataConfiguration,
  kataConfigurationText,
} from "../../runtime/kata-configuration.ts";
import { platforms } from "../../runtime/platforms.ts";
import { platformNames } from "../../runtime/spec.ts";
import { guests, settings, withSettings } from "../unit/measure/kata-settings.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { cases: { type: "string", default: "50" } },
});
const cases = Number(values.cases);
const directory = mkdtempSync(join(tmpdir(), "kata-command-line-"));
mkdirSync(join(directory, "files"));
/** Kata looks every file up when it loads the configuration. */
const path = (role: string) => {
  const file = join(directory, "files", basename(role));
  writeFileSync(file, "not empty");
  return file;
};
const roles = ["shim", "vmm", "firmware", "kernel", "rootfs"];

function real(program: string, configuration: KataConfiguration): { line?: string; error?: string } {
  const file = join(directory, "configuration.toml");
  writeFileSync(file, kataConfigurationText(configuration));
  const tee = hypervisorOf(configuration).sev_snp_guest === true ? "snp" : "tdx";
  const { status, stdout, stderr, error } = spawnSync(program, [file], {
    encoding: "utf8",
    env: { ...process.env, LINE_TEE: tee },
  });
  if (error) throw error;
  return status === 0 ? { line: stdout.replace(/\n$/, "") } : { error: stderr.trim().slice(0, 300) };
}

/** Undefined: as it should be. */
function disagreement(program: string, kataVersion: string, configuration: KataConfiguration): string | undefined {
  const predicted = kataCommandLine({ flavour: "kata-go", kataVersion }, configuration);
  const { line, error } = real(program, configuration);
  if (predicted === undefined || line === withVcpus(predicted, 1)) return undefined;
  const ours = withVcpus(predicted, 1);
  const theirs = line ?? `none: ${error}`;
  const same = [...ours].findIndex((character, index) => character !== theirs[index]);
  const from = Math.max(0, (same < 0 ? ours.length : same) - 40);
  return `predicted …${ours.slice(from)}\nreal      …${theirs.slice(from)}\n${kataConfigurationText(configuration)}`;
}

let failed = 0;
function report(what: string, problems: (string | undefined)[], predicted: number, of: number): void {
  const found = problems.find((problem) => problem !== undefined);
  if (found !== undefined) failed += 1;
  console.log(
    `${found === undefined ? "ok    " : "FAILED"} ${what}: ${predicted} of ${of} predicted${found === undefined ? ", and each is the real line" : `\n${found}`}`,
  );
}

try {
  for (const argument of positionals) {
    const [kataVersion = "", program = ""] = argument.split(/=(.*)/s);
    const isPredicted = (configuration: KataConfiguration) =>
      kataCommandLine({ flavour: "kata-go", kataVersion }, configuration) !== undefined;
    for (const name of platformNames.filter((platform) => pairs["kata-go"][platform].supported)) {
      const rendered = (guest: (typeof guests)[number]) =>
        kataConfiguration({
          platform: platforms[name],
          flavour: "kata-go",
          kataVersion,
          path: (role) => (roles.includes(role) ? path(role) : undefined),
          place: path,
          guest,
          kubeletRoot: "/var/lib/kubelet",
        });
      const files = guests.map(rendered);
      report(
        `Kata ${kataVersion}, ${name}, as rendered`,
        files.map((file) => disagreement(program, kataVersion, file)),
        files.filter(isPredicted).length,
        files.length,
      );
      const random = fc.sample(settings, { numRuns: cases, seed: 1 }).map((setting, index) => {
        const guest = guests[index % guests.length];
        return withSettings(rendered(guest ?? guests[0]), setting);
      });
      report(
        `Kata ${kataVersion}, ${name}, random settings`,
        random.map((file) => disagreement(program, kataVersion, file)),
        random.filter(isPredicted).length,
        random.length,
      );
    }
  }
} finally {
  rmSync(directory, { recursive: true });
}
process.exitCode = failed === 0 && positionals.length > 0 ? 0 : 1;
