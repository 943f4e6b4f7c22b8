// Measures what the product promises about speed, in one process, as medians of ten; exported for the bench command.
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chunksOf, rawSha256, sourceOf } from "../../measure/bytes.ts";
import { collectInputs } from "../../measure/collect-inputs.ts";
import { readFirmware } from "../../measure/ovmf.ts";
import { referenceValues } from "../../measure/reference-values.ts";
import { commandLineHash, firmwareLaunch, launchDigest } from "../../measure/snp.ts";
import { buildHashTree } from "../../measure/verity.ts";
import { signatureOf } from "../../measure/vmsa.ts";
import { measurementInputs } from "../../runtime/measurement-inputs.ts";
import { withFile } from "../../tools/files/byte-source.ts";
import { buildPrograms } from "../../tools/image/bundle.ts";
import { ensureLocalPayload } from "../../tools/local-payload/local-payload.ts";
import { type Progress, toStderr } from "../../tools/process/progress.ts";
import { sevSnpMeasure, veritysetup } from "../campaigns/real-tools.ts";
import { vector } from "../unit/measure/vectors.ts";

export interface Benchmark {
  name: string;
  /** Median, in milliseconds unless `unit` says otherwise. */
  ours: number;
  unit?: string;
  /** What it is compared with; absent if the limit is an absolute value. */
  reference?: { name: string; time: number };
  /** Largest ratio to the reference, or largest value. */
  limit: number;
  ok: boolean;
  note?: string;
}

const rounds = 10;

function median(action: () => void): number {
  action(); // compiles
  const times = Array.from({ length: rounds }, () => {
    const begin = performance.now();
    action();
    return performance.now() - begin;
  });
  return times.sort((a, b) => a - b)[rounds / 2] ?? Number.NaN;
}

/** Runs both in turns, so that both see the same load on the machine. */
function compare(
  name: string,
  limit: number,
  ours: () => void,
  referenceName: string,
  reference: () => void,
): Benchmark {
  const times: [number[], number[]] = [[], []];
  ours();
  reference();
  for (let round = 0; round < rounds; round += 1) {
    for (const [index, action] of [ours, reference].entries()) {
      const begin = performance.now();
      action();
      times[index]?.push(performance.now() - begin);
    }
  }
  const [left = Number.NaN, right = Number.NaN] = times.map((each) => each.sort((a, b) => a - b)[rounds / 2]);
  return { name, ours: left, reference: { name: referenceName, time: right }, limit, ok: left / right <= limit };
}

/** Debian's firmware with the end of an AmdSev build, which has space for kernel hashes; a real kernel and initrd. */
async function podVm(progress: Progress) {
  const { directory } = await ensureLocalPayload({}, progress);
  const read = (path: string) => readFileSync(join(directory, "files/share", path));
  const firmware = read("OVMF.fd");
  const suffix = vector("ovmf_AmdSev_suffix.bin");
  firmware.set(suffix, firmware.length - suffix.length);
  return {
    firmware,
    kernel: read("kata-kernel"),
    initrd: read("kata-initrd.zst"),
    commandLine: "console=hvc0 quiet panic=1",
  };
}

async function launchDigests(progress: Progress): Promise<Benchmark[]> {
  const { firmware, kernel, initrd, commandLine } = await podVm(progress);
  const ours = () => {
    const launch = {
      ...firmwareLaunch(firmware, readFirmware(firmware)),
      guestFeatures: 1,
      kernel: { kernel: rawSha256(kernel), initrd: rawSha256(initrd), commandLine: commandLineHash(commandLine) },
    };
    launchDigest(launch, signatureOf("EPYC-Milan"), 4);
  };
  const once = () => [firmware, kernel, initrd].map(rawSha256);
  const inputs = JSON.stringify(
    collectInputs(
      { firmware: sourceOf(firmware), kernel: sourceOf(kernel), initrd: sourceOf(initrd) },
      { commandLine: `${commandLine} nr_cpus={vcpus}` },
    ),
  );
  const vcpus = Array.from({ length: 64 }, (_, index) => index + 1);
  const table = median(() => {
    const values = measurementInputs.parse(JSON.parse(inputs));
    referenceValues(values, { tee: "snp", models: ["EPYC-Milan", "EPYC-Genoa", "EPYC-Turin"], vcpus });
  });
  const megabytes = ((firmware.length + kernel.length + initrd.length) / 2 ** 20).toFixed(1);
  return [
    compare(
      `launch digest of firmware, kernel and initrd (${megabytes} MiB)`,
      1.3,
      ours,
      "SHA-256 of the same bytes",
      once,
    ),
    { name: "table of 3 models × 64 vCPU counts from the manifest", ours: table, limit: 50, ok: table <= 50 },
  ];
}

const salt = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

async function verityTree(progress: Progress): Promise<Benchmark> {
  const [command, ...args] = await veritysetup(progress);
  const directory = mkdtempSync(join(tmpdir(), "verity-bench-"));
  const [data, tree] = [join(directory, "data"), join(directory, "tree")];
  try {
    progress("Writing 1 GiB for the dm-verity benchmark …");
    const file = openSync(data, "w");
    const block = Uint8Array.from({ length: 1 << 20 }, (_, index) => (index * 2654435761) >>> 13);
    for (let written = 0; written < 1024; written += 1) writeSync(file, block);
    closeSync(file);
    let most = 0;
    const parameters = {
      algorithm: "sha256",
      dataBlockSize: 4096,
      hashBlockSize: 4096,
      dataBlocks: 1 << 18,
      salt: Buffer.from(salt, "hex"),
    } as const;
    let root = "";
    const ours = () =>
      withFile(data, (source) => {
        const output = openSync(tree, "w");
        root = buildHashTree(chunksOf(source), parameters, (offset, bytes) =>
          writeSync(output, bytes, 0, bytes.length, offset),
        ).toString("hex");
        closeSync(output);
        most = Math.max(most, process.memoryUsage().rss);
      });
    const theirs = () => {
      rmSync(tree, { force: true });
      const { stdout } = spawnSync(command, [...args, "format", "--no-superblock", "--salt", salt, data, tree], {
        encoding: "utf8",
      });
      if (!stdout.includes(root)) throw new Error(`veritysetup's root hash differs from ${root}: ${stdout}`);
    };
    const result = compare("dm-verity tree of 1 GiB", 1.5, ours, "veritysetup format", theirs);
    return { ...result, note: `resident memory at most ${(most / 2 ** 20).toFixed(0)} MiB` };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Whole processes, ours as `npm run build` makes it: how long a user at a shell waits. */
async function wholeProcesses(progress: Progress): Promise<Benchmark> {
  const { firmware, kernel, initrd, commandLine } = await podVm(progress);
  const [command, ...args] = await sevSnpMeasure(progress);
  const directory = mkdtempSync(join(tmpdir(), "measure-bench-"));
  try {
    for (const [name, bytes] of Object.entries({ firmware, kernel, initrd }))
      writeFileSync(join(directory, name), bytes);
    const options = ["--vcpus", "4", "--vcpu-type", "EPYC-Milan", "--append", commandLine];
    for (const [option, name] of [
      ["--ovmf", "firmware"],
      ["--kernel", "kernel"],
      ["--initrd", "initrd"],
    ] as const)
      options.push(option, join(directory, name));
    const { measure } = await buildPrograms();
    const ours = () => spawnSync(process.execPath, [measure, "snp", ...options], { encoding: "utf8" }).stdout;
    const theirs = () => spawnSync(command, [...args, "--mode", "snp", ...options], { encoding: "utf8" }).stdout.trim();
    const digest = theirs();
    if (digest === "" || !ours().includes(digest))
      throw new Error(`sev-snp-measure says ${digest}, ours says ${ours()}`);
    return compare("whole process of measure snp", 1, ours, "sev-snp-measure", theirs);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

export async function measureBenchmarks(progress: Progress = toStderr): Promise<Benchmark[]> {
  return [...(await launchDigests(progress)), await verityTree(progress), await wholeProcesses(progress)];
}

export function describeBenchmark({ name, ours, unit = "ms", reference, limit, ok, note }: Benchmark): string {
  const against =
    reference === undefined
      ? `${ours.toFixed(1)} ${unit} (limit ${limit} ${unit})`
      : `${ours.toFixed(1)} ms, ${reference.name} ${reference.time.toFixed(1)} ms: ratio ${(ours / reference.time).toFixed(2)}${Number.isFinite(limit) ? ` (limit ${limit.toFixed(2)})` : ""}`;
  return `${ok ? "ok    " : "FAILED"} ${name}: ${against}${note === undefined ? "" : `; ${note}`}`;
}

if (process.argv[1] === import.meta.filename) {
  const results = await measureBenchmarks();
  for (const result of results) console.log(describeBenchmark(result));
  process.exitCode = results.every((result) => result.ok) ? 0 : 1;
}
