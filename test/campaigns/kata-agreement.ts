// kata-agreement.ts BUILDS [--cases N, default 50] [--only TEXT]: starts real shims of Kata with the files that are
// rendered for them, as containerd starts them, and compares what they tell QEMU with what is predicted and published.
//
// BUILDS holds a directory for each build, VERSION-go or VERSION-rs (4.1.0-go; 4.1.0+23-rs is judged as 4.1.0), with its
// containerd-shim-kata-v2; whoever runs this makes them of Kata's releases. It needs Linux and root, and neither KVM nor a TEE:
// QEMU is a script that notes its arguments, and what Kata asks of the machine is answered in a mount namespace (kata-host.ts;
// with gdb where the processor has no SNP).
//
// For each build and each platform that it supports: the rendered file, once for a pod without limits and once with; kernel
// parameters with odd quoting; N files whose settings are random. Exit code 1 if something differs. A line that is not predicted is listed as such: nothing was claimed of it.
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, readdirSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import fc from "fast-check";
import { kataCommandLine, withVcpus } from "../../measure/kata-kernel-command-line.ts";
import { valuesOf } from "../../measure/launch-values.ts";
import { cpuModelsOf, referenceValues } from "../../measure/reference-values.ts";
import { type MeasuredRuntime, measuredRuntime } from "../../measure/runtime.ts";
import { deriveSpec } from "../../runtime/derive.ts";
import { pairs } from "../../runtime/flavours.ts";
import {
  hypervisorOf,
  type KataConfiguration,
  kataConfigurationText,
  sizeBeyondLimits,
} from "../../runtime/kata-configuration.ts";
import type { FileRole } from "../../runtime/manifest.ts";
import { platforms } from "../../runtime/platforms.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { type PlatformName, platformNames, runtimeDirectory } from "../../runtime/spec.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { requireHostPrograms } from "../../tools/programs/host-packages.ts";
import { containerdPrograms } from "../../tools/programs/pinned.ts";
import { type Setting, settings, withSettings } from "../unit/measure/kata-settings.ts";
import { hasSnp, pretendHost, pretendTee, withSnpProcessor } from "./kata-host.ts";
import { Containerd, cgroup, type Launch, launchOf, place, recorder, type Started } from "./kata-launch.ts";
import { type Payload, payloadsFor } from "./kata-payload.ts";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    cases: { type: "string", default: "50" },
    only: { type: "string", default: "" },
    inside: { type: "boolean", default: false },
  },
});

interface Build {
  /** As its directory is called. */
  name: string;
  shim: string;
  flavour: "kata-go" | "kata-rs";
  kataVersion: string;
}

const sizes = [{}, { cpus: 1.5, memoryMiB: 256 }] as const;
/** As users might write them: what counts is what Kata's own parser makes of each. */
const odd = [
  ...['a="b  c" quiet', "x= y==1", " \t\tquiet\n a=b ", "=x", 'open "quote', "a='b c' d=\\\"e", "ä=ö a,b"].map(
    (value): Setting[] => [{ table: "hypervisor", key: "kernel_params", value }],
  ),
  ...["AB", "ab"].map((hex): Setting[] => [
    {
      table: "hypervisor",
      key: "kernel_verity_params",
      value: `data_blocks=9, salt=${hex},root_hash=${hex.repeat(32)},data_block_size=4096,hash_block_size=4096`,
    },
  ]),
];

interface Row {
  build: Build;
  platform: PlatformName;
  cells: string[];
  problems: string[];
}

/** What Kata does with a file, on a node that has the payload. */
class Node {
  readonly #containerd: Containerd;
  readonly build: Build;
  readonly platform: PlatformName;
  /** Kata asks it for SNP: without it Go's runtime leaves the TEE out of QEMU's arguments, and runtime-rs starts nothing. */
  readonly #lacksProcessor: boolean;

  constructor(containerd: Containerd, build: Build, platform: PlatformName) {
    this.#containerd = containerd;
    this.build = build;
    this.platform = platform;
    this.#lacksProcessor = platforms[platform].tee === "snp" && !hasSnp();
    pretendTee(platforms[platform].tee);
  }

  async start(payload: Payload, text: string, how: StartOptions = {}): Promise<Started> {
    const { spec } = deriveSpec({ platform: this.platform, manifest: payload.manifest });
    const directory = runtimeDirectory(spec.handler);
    rmSync(directory, { recursive: true, force: true });
    for (const { role, path } of spec.files) place(join(directory, path), payload.bytes[role] ?? "");
    const pathOf = (role: FileRole) => join(directory, spec.files.find((file) => file.role === role)?.path ?? role);
    const [shim, vmm] = [pathOf("shim"), pathOf("vmm")];
    place(vmm, recorder, 0o755);
    rmSync(shim);
    if (how.processor && this.#lacksProcessor) {
      copyFileSync(this.build.shim, `${shim}.real`);
      place(shim, withSnpProcessor(`${shim}.real`, this.build.flavour), 0o755);
    } else copyFileSync(this.build.shim, shim);
    const configuration = join(directory, spec.kataConfig.path);
    place(configuration, text);
    if (how.dropIn) place(join(dirname(configuration), "config.d/10-same.toml"), text);
    return this.#containerd.sandbox({ shim, configuration, vmm, ...how.size });
  }
}

interface StartOptions {
  size?: (typeof sizes)[number];
  /** The file again, laid over itself: Kata's Go runtime names the keys that it does not know, but only of such a file. */
  dropIn?: boolean;
  /** A processor with SNP, if need be by GDB, under which a start takes many times as long. */
  processor?: boolean;
}

function difference(name: string, predicted: string, real: string): string {
  const same = [...predicted].findIndex((character, index) => character !== real[index]);
  const from = Math.max(0, (same < 0 ? predicted.length : same) - 40);
  return `${name}:\n  predicted …${predicted.slice(from)}\n  real      …${real.slice(from)}`;
}

/** Published values, and the same computed again from what QEMU is told. */
function digests(runtime: MeasuredRuntime, launch: Launch): { published: string; real: string } {
  const { tee } = platforms[runtime.platform];
  const published = valuesOf(runtime, [launch.vcpus]);
  if (published === undefined || runtime.inputs === undefined) throw new Error("the payload has no measurement");
  const inputs = { ...runtime.inputs, commandLine: launch.commandLine };
  const real = referenceValues(inputs, { tee, models: [launch.cpuModel], vcpus: [launch.vcpus] });
  // Of TDX's registers, the command line is in RTMR2.
  const text = ({ snp, tdx }: typeof real) =>
    [...snp.map(({ measurement }) => measurement), ...tdx.map(({ mrtd, rtmrs }) => `${rtmrs[2]} ${mrtd}`)].join();
  return { published: text(published), real: text(real) };
}

/** The file as it is rendered, for pods of different sizes. */
async function asRendered(node: Node, payload: Payload): Promise<Row> {
  const { build, platform } = node;
  const { tee } = platforms[platform];
  const choice = { platform, manifest: payload.manifest };
  const { spec, configuration } = deriveSpec(choice);
  const problems: string[] = [];
  const cells: string[][] = [];
  const predicted = kataCommandLine(build, configuration);
  for (const size of sizes) {
    const how = { size, dropIn: "cpus" in size, processor: true };
    const { arguments: args, error, log } = await node.start(payload, spec.kataConfig.content, how);
    const unknown = /undecoded keys in [^:]*: (\[[^\]]*\])/.exec(log)?.[1];
    if (unknown !== undefined) problems.push(`unknown keys ${unknown}`);
    if (args === undefined) {
      cells.push([`no: ${error.slice(-300)}`, "", "", "", "", "", ""]);
      problems.push(`no QEMU: ${error.slice(-1500)}`);
      continue;
    }
    const launch = launchOf(args);
    const file = (role: string) => {
      const found = spec.files.find((one) => one.role === role);
      return found && join(runtimeDirectory(spec.handler), found.path);
    };
    const is = (name: string, real: unknown, expected: unknown): string => {
      if (real !== expected) problems.push(`${name} is ${real}, predicted ${expected}`);
      return real === expected ? String(real) : `${real} (predicted ${expected})`;
    };
    is("-kernel", launch.kernel, file("kernel"));
    is("-initrd", launch.initrd, file("initrd"));
    const { default_memory, default_vcpus } = hypervisorOf(configuration);
    const beyond = sizeBeyondLimits(configuration);
    const memory = "memoryMiB" in size ? beyond.memoryMiB + size.memoryMiB : default_memory;
    const vcpus = "cpus" in size ? Math.ceil(beyond.vcpus + size.cpus) : default_vcpus;
    const guest = guestProblems(tee, launch, file("firmware"), configuration);
    problems.push(...guest);
    if (tee === "snp" && !cpuModelsOf(build.flavour).includes(launch.cpuModel))
      problems.push(`-cpu ${launch.cpuModel}, measured ${cpuModelsOf(build.flavour)}`);
    let same = "not predicted";
    let digest = "none published";
    if (predicted !== undefined) {
      same = launch.commandLine === withVcpus(predicted, launch.vcpus) ? "equal" : "DIFFERS";
      if (same !== "equal")
        problems.push(difference("command line", withVcpus(predicted, launch.vcpus), launch.commandLine));
      const { published, real } = digests(measuredRuntime(choice), launch);
      digest = published === real ? real.slice(0, 12) : "DIFFERS";
      if (published !== real) problems.push(`digest ${real}, published ${published}`);
    }
    cells.push([
      "yes",
      build.flavour === "kata-rs" ? "not said" : (unknown ?? "none"),
      same,
      is("-smp", launch.vcpus, vcpus),
      `${is("-m", launch.memoryMiB, memory)} MiB`,
      digest,
      guest.length === 0 ? "ok" : "DIFFERS",
    ]);
    if (process.env.SHOW) console.log(`${build.name} ${platform} ${JSON.stringify(size)}\n  ${args.join("\n  ")}`);
  }
  const both = (cells[0] ?? []).map((cell, index) =>
    cells[1]?.[index] === cell ? cell : `${cell} / ${cells[1]?.[index]}`,
  );
  return { build, platform, cells: both, problems: [...new Set(problems)] };
}

/** What the TEE's object in QEMU must say. */
function guestProblems(tee: string, launch: Launch, firmware: string | undefined, file: KataConfiguration): string[] {
  const { guest } = launch;
  if (tee === "none") return guest === undefined ? [] : [`-object ${guest} without a TEE`];
  if (guest === undefined) return ["no -object for the TEE"];
  const { snp_guest_policy, tdx_quote_generation_service_socket_port: port } = hypervisorOf(file);
  const policy = Number(/policy=(\w+)/.exec(guest)?.[1]);
  const wanted =
    tee === "snp"
      ? ["sev-snp-guest", "kernel-hashes=on"]
      : [`"qom-type":"tdx-guest"`, port === 0 ? '"type":"unix"' : `"port":"${port}"`];
  return [
    ...wanted.filter((part) => !guest.includes(part)).map((part) => `-object ${guest} lacks ${part}`),
    ...(tee !== "snp" || policy === snp_guest_policy
      ? []
      : [`-object ${guest} has not the policy ${snp_guest_policy}`]),
    ...(launch.firmware === firmware ? [] : [`firmware is ${launch.firmware}, predicted ${firmware}`]),
  ];
}

interface Variation {
  predicted: boolean;
  problem?: string;
}

/** Where a line is predicted, it is the real one; where Kata refuses the file, nothing may be predicted. */
async function varied(node: Node, payload: Payload, change: Setting[]): Promise<Variation> {
  const { configuration } = deriveSpec({ platform: node.platform, manifest: payload.manifest });
  const changed = withSettings(configuration, change);
  const predicted = kataCommandLine(node.build, changed);
  if (predicted === undefined) return { predicted: false };
  const processor = node.build.flavour === "kata-rs";
  const { arguments: args, error } = await node.start(payload, kataConfigurationText(changed), { processor });
  const launch = args && launchOf(args);
  const real = launch?.commandLine ?? `none: ${error}`;
  const ours = withVcpus(predicted, launch?.vcpus ?? 1);
  if (ours === real) return { predicted: true };
  const what = change.map(({ key, value }) => `${key} = ${JSON.stringify(value)}`).join(", ");
  return { predicted: true, problem: difference(`command line with ${what}`, ours, real) };
}

async function variations(node: Node, payloads: Payload[], cases: number): Promise<Variation[]> {
  const changes = [...odd, ...fc.sample(settings, { numRuns: cases, seed: 1 })];
  const results: Variation[] = [];
  for (const [index, change] of changes.entries()) {
    const payload = payloads[index % payloads.length];
    if (payload) results.push(await varied(node, payload, change));
  }
  return results;
}

async function inside(directory: string): Promise<void> {
  const builds = readdirSync(directory).flatMap((name): Build[] => {
    const [, kataVersion, kind] = /^(\d+\.\d+\.\d+)(?:\+[\w.]+)?-(go|rs)$/.exec(name) ?? [];
    if (kataVersion === undefined) return [];
    const flavour = kind === "rs" ? "kata-rs" : "kata-go";
    const shim = join(directory, name, "containerd-shim-kata-v2");
    if (!existsSync(shim))
      throw new Refusal("build-incomplete", `There is no ${shim}: put the shim of that build there.`);
    return [{ name, shim, flavour, kataVersion }];
  });
  const programs = await containerdPrograms("2.3", toStderr);
  const end = await pretendHost();
  const containerd = await Containerd.start(programs, "/mnt/containerd");
  const rows: Row[] = [];
  try {
    for (const build of builds)
      for (const platform of platformNames) {
        if (!pairs[build.flavour][platform].supported || !`${build.name} ${platform}`.includes(options.only)) continue;
        const node = new Node(containerd, build, platform);
        const payloads = payloadsFor(build);
        const [first] = payloads;
        if (first === undefined) continue;
        const row = await asRendered(node, first);
        if (row.problems.length === 0) {
          const results = await variations(node, payloads, Number(options.cases));
          row.cells.push(`${results.filter(({ predicted }) => predicted).length} of ${results.length}`);
          row.problems.push(...results.flatMap(({ problem }) => (problem === undefined ? [] : [problem])));
        }
        rows.push(row);
        toStderr(`${build.name} ${platform}: ${row.cells.join(" · ")}`);
      }
  } finally {
    await containerd.stop();
    await end();
  }
  report(rows);
}

function report(rows: Row[]): void {
  console.log(
    "| build | platform | loads | unknown keys | command line | vCPUs | memory | digest | TEE | variations predicted |",
  );
  console.log("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
  for (const { build, platform, cells } of rows) console.log(`| ${[build.name, platform, ...cells].join(" | ")} |`);
  for (const { build, platform, problems } of rows)
    for (const problem of problems) console.log(`FAILED ${build.name} ${platform}: ${problem}`);
  process.exitCode = rows.length > 0 && rows.every(({ problems }) => problems.length === 0) ? 0 : 1;
}

const [builds] = positionals;
if (builds === undefined) throw new Error("say where the builds of Kata are");
if (options.inside) await inside(resolve(builds));
else {
  if (!hasSnp()) await requireHostPrograms([{ program: "gdb", package: "gdb" }], toStderr);
  const own = ["--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
  const again = [process.execPath, ...process.argv.slice(1), "--inside"];
  process.exitCode = spawnSync("unshare", [...own, "--", ...again], { stdio: "inherit" }).status ?? 1;
  spawnSync("find", ["/sys/fs/cgroup", "-depth", "-type", "d", "-path", `*/${cgroup}*`, "-exec", "rmdir", "{}", "+"]);
}
