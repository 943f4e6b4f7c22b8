import type { FileRole, GuestImage, PayloadFile } from "../runtime/manifest.ts";
import { type MeasurementInputs, sevSectionType } from "../runtime/measurement-inputs.ts";
import type { Tee } from "../runtime/platforms.ts";
import { toHex } from "./bytes.ts";
import { type KataBuild, kataParameters } from "./kata-kernel-command-line.ts";
import { lastValue, parseCommandLine, verityTarget } from "./kernel-command-line.ts";
import { parseKernelVerityParams } from "./verity-superblock.ts";

export interface ConsistencyOptions extends KataBuild {
  inputs: MeasurementInputs;
  tee: Tee;
  /** The payload's files, as they will be on nodes. */
  files: PayloadFile[];
  /** What Kata's configuration will say about the guest image. */
  guest?: GuestImage | undefined;
  /** The command line that Kata passes by that configuration, where it is known; see kata-kernel-command-line.ts. */
  passed?: string | undefined;
}

/**
 * Checks that the parts of a payload belong together: files and what was collected from them, root hash, command line and
 * Kata's configuration, firmware and TEE. Each problem is a sentence. If there is none, a guest of these parts boots and
 * measures as predicted.
 */
export function checkConsistency(options: ConsistencyOptions): string[] {
  const { tee, guest, files, passed } = options;
  const inputs = withCommandLine(options.inputs, passed);
  return [
    ...fileProblems(inputs, files),
    ...wronglyRead(inputs, files),
    ...firmwareProblems(inputs, tee),
    ...commandLineProblems(inputs, options),
    ...verityProblems(inputs, guest),
    ...extensionProblems(inputs, guest, files),
    ...filesystemProblems(inputs, guest),
  ];
}

/** The inputs with the command line that Kata passes, unless the payload's builder says which it is or no kernel is measured. */
export const withCommandLine = (inputs: MeasurementInputs, passed: string | undefined): MeasurementInputs =>
  inputs.commandLine === undefined && inputs.kernel !== undefined && passed !== undefined
    ? { ...inputs, commandLine: passed }
    : inputs;

/** The files that a launch measures, and the inputs that were collected from each. */
const collected = {
  firmware: ({ firmware, snp, tdx }) => firmware ?? snp ?? tdx,
  kernel: ({ kernel }) => kernel,
  initrd: ({ initrd }) => initrd,
  igvm: ({ igvm }) => igvm,
  rootfs: ({ rootfs }) => rootfs,
  vmm: ({ vmm }) => vmm,
} satisfies Partial<Record<FileRole, (inputs: MeasurementInputs) => object | undefined>>;
export const measuredRoles = Object.keys(collected) as (keyof typeof collected)[];
/** Nothing is measured of these files; they only decide whether RTMR1 is known. */
const optionalRoles: FileRole[] = ["vmm"];

/** Values that were collected from other files are those of no guest. */
function fileProblems(inputs: MeasurementInputs, files: PayloadFile[]): string[] {
  const unknown: string[] = [];
  const problems = measuredRoles.flatMap((role) => {
    const file = files.find((each) => each.role === role);
    const from: object | undefined = collected[role](inputs);
    if (file === undefined)
      return from === undefined
        ? []
        : [`The measurement has inputs of role ${role}, but the payload has no such file.`];
    if (from === undefined && optionalRoles.includes(role)) return [];
    const sha256 = from !== undefined && "sha256" in from ? from.sha256 : undefined;
    if (sha256 === undefined) unknown.push(role);
    return sha256 === undefined || sha256 === file.sha256
      ? []
      : [
          `The ${role} (${file.path}) has the SHA-256 ${file.sha256}, but the measurement's inputs were collected from one with ${sha256}.`,
        ];
  });
  if (unknown.length > 0)
    problems.push(
      `The manifest does not say from which ${unknown.join(", ")} its measurement's inputs were collected, as those of earlier versions did not.`,
    );
  return problems;
}

/** Earlier versions, which did not look into the VMM, overwrote the first megabyte of larger firmware before they measured it. */
function wronglyRead({ firmware, igvm, vmm }: MeasurementInputs, files: PayloadFile[]): string[] {
  const size = files.find(({ role }) => role === "firmware")?.size ?? 0;
  return firmware === undefined || igvm !== undefined || vmm !== undefined || size <= 1 << 20
    ? []
    : [
        "The manifest is of an earlier version that read firmware wrongly: its MRTD and SNP digests are those of no guest.",
      ];
}

function firmwareProblems(inputs: MeasurementInputs, tee: ConsistencyOptions["tee"]): string[] {
  if (tee === "none") return [];
  if (inputs.igvm !== undefined) {
    const { igvm } = inputs;
    if (tee !== "snp") return ["The payload has an IGVM file for SEV-SNP, but the platform is TDX."];
    if (igvm.idBlock === undefined || igvm.idBlock.launchDigest === igvm.launchDigest) return [];
    return [
      `The IGVM file's ID block expects launch digest ${igvm.idBlock.launchDigest}, but the file measures to ${igvm.launchDigest}: the firmware would refuse to start the guest.`,
    ];
  }
  if (tee === "tdx")
    return inputs.tdx === undefined
      ? ["The firmware has no TDX metadata, but the platform is TDX: use an OVMF built with TDX support."]
      : [];
  if (inputs.snp === undefined) {
    return ["The firmware has no SEV metadata, but the platform is SEV-SNP: use an OVMF built from OvmfPkg/AmdSev."];
  }
  const types = new Set(inputs.snp.sections.map((section) => section.type));
  const missing = Object.entries({ secrets: sevSectionType.secrets, CPUID: sevSectionType.cpuid })
    .filter(([, type]) => !types.has(type))
    .map(([name]) => `The firmware's SEV metadata has no ${name} page: an SEV-SNP guest cannot start from it.`);
  const hashes = types.has(sevSectionType.kernelHashes) && inputs.snp.hashTableGpa !== undefined;
  if (inputs.kernel !== undefined && !hashes) {
    missing.push(
      "The firmware has no place for kernel hashes, so kernel, initrd and command line would not be measured: use an OVMF built from OvmfPkg/AmdSev.",
    );
  }
  return missing;
}

function commandLineProblems(inputs: MeasurementInputs, options: ConsistencyOptions): string[] {
  const { guest, passed, flavour, kataVersion } = options;
  const { commandLine, kernel } = inputs;
  if (commandLine === undefined) return [];
  const problems: string[] = [];
  const limit = kernel?.commandLineLimit;
  const length = Buffer.byteLength(commandLine);
  if (limit !== undefined && length > limit)
    problems.push(`The kernel command line has ${length} bytes, but the kernel takes ${limit}: it would be truncated.`);
  if (passed !== undefined && passed !== commandLine) {
    problems.push(
      `The measured kernel command line is not the one that Kata ${kataVersion} (${flavour}) passes: ${firstDifference(commandLine, passed)}.`,
    );
  } else if (
    passed === undefined &&
    guest !== undefined &&
    !isPart(kataParameters(guest.kernelParams), kataParameters(commandLine))
  ) {
    problems.push(
      `The measured kernel command line does not contain the configuration's kernel_params "${guest.kernelParams}".`,
    );
  }
  return problems;
}

const isPart = (words: string[], all: string[]) =>
  words.length === 0 || ` ${all.join(" ")} `.includes(` ${words.join(" ")} `);

function firstDifference(measured: string, passed: string): string {
  const text = (line: string) =>
    parseCommandLine(line).map(({ key, value }) => (value === undefined ? key : `${key}=${value}`));
  const [left, right] = [text(measured), text(passed)];
  const at = left.findIndex((word, index) => word !== right[index]);
  if (at < 0 && left.length === right.length) return "they differ only in their blanks or quotes";
  const index = at < 0 ? left.length : at;
  return `parameter ${index + 1} is measured as "${left[index] ?? "(none)"}", but passed as "${right[index] ?? "(none)"}"`;
}

const measuredLine = ({ igvm, commandLine }: MeasurementInputs) => igvm?.commandLine ?? commandLine;

/** Every place that states the rootfs image's dm-verity parameters, against the image itself. */
function verityProblems(inputs: MeasurementInputs, guest: GuestImage | undefined): string[] {
  const verity = inputs.rootfs?.verity;
  const commandLine = measuredLine(inputs) ?? guest?.kernelParams ?? "";
  const problems: string[] = [];
  const rootHash = lastValue(commandLine, "roothash");
  const target = verityTarget(commandLine);
  const given =
    guest === undefined || guest.kernelVerityParams === ""
      ? undefined
      : parseKernelVerityParams(guest.kernelVerityParams);
  if (verity === undefined) {
    const claim = rootHash ?? target?.rootHash ?? given?.rootHash;
    return claim === undefined || inputs.rootfs === undefined
      ? []
      : [`The command line expects root hash ${claim}, but the rootfs image has no dm-verity tree that can be read.`];
  }
  const compare = (where: string, what: string, stated: string | number, actual: string | number) => {
    if (stated !== actual) problems.push(`${where} says ${what} ${stated}, but the rootfs image has ${actual}.`);
  };
  if (rootHash !== undefined)
    compare("The kernel command line (roothash)", "root hash", rootHash.toLowerCase(), verity.rootHash);
  const states = [
    ["The kernel command line (dm-mod.create)", target?.rootHash, target],
    ["Kata's kernel_verity_params", given?.rootHash, given?.parameters],
  ] as const;
  for (const [where, root, stated] of states) {
    if (root === undefined || stated === undefined) continue;
    compare(where, "root hash", root, verity.rootHash);
    compare(where, "salt", toHex(stated.salt), verity.salt);
    compare(where, "data blocks", stated.dataBlocks, verity.dataBlocks);
    compare(where, "data block size", stated.dataBlockSize, verity.dataBlockSize);
    compare(where, "hash block size", stated.hashBlockSize, verity.hashBlockSize);
    compare(where, "hash algorithm", stated.algorithm, verity.algorithm);
  }
  const covered = verity.dataBlocks * verity.dataBlockSize;
  if (target !== undefined) {
    const where = "The kernel command line (dm-mod.create)";
    compare(where, "first hash block", target.hashStart, verity.superblock ? 1 : 0);
    compare(where, "sectors", target.sectors, covered / 512);
  }
  const filesystem = inputs.rootfs?.filesystem;
  if (filesystem !== undefined && filesystem.size > covered)
    problems.push(
      `The rootfs image's dm-verity tree covers ${covered} bytes, but its ${filesystem.type} has ${filesystem.size}: the guest could not mount it.`,
    );
  if (given !== undefined && rootHash !== undefined) {
    problems.push(
      "Both roothash= and kernel_verity_params are set: the guest would set dm-verity up twice and not boot.",
    );
  }
  if (rootHash === undefined && target === undefined && given === undefined && inputs.igvm === undefined) {
    problems.push(
      "Nothing binds the rootfs image to the launch measurement: no roothash=, dm-mod.create or kernel_verity_params names its root hash.",
    );
  }
  return problems;
}

/** Each extension's file and dm-verity parameters, against what was collected of it. */
function extensionProblems(inputs: MeasurementInputs, guest: GuestImage | undefined, files: PayloadFile[]): string[] {
  const given = guest?.extensions ?? [];
  const collected = inputs.extensions ?? [];
  const names = (all: { name: string }[]) => all.map(({ name }) => name).join(", ") || "none";
  if (names(given) !== names(collected))
    return [
      `The guest's image has the extensions ${names(given)}, but the measurement's inputs are of ${names(collected)}.`,
    ];
  return given.flatMap(({ name, path, verityParams }, index) => {
    const extension = collected[index];
    const where = `The extension ${name} (${path})`;
    const file = files.find((each) => each.path === path);
    if (extension?.sha256 !== file?.sha256)
      return [
        `${where} has the SHA-256 ${file?.sha256}, but the measurement's inputs were collected from one with ${extension?.sha256}.`,
      ];
    const verity = extension?.verity;
    if (verity === undefined) return [`${where} has no dm-verity tree that can be read.`];
    const { rootHash, parameters } = parseKernelVerityParams(verityParams);
    const pairs: [what: string, stated: string | number, actual: string | number][] = [
      ["root hash", rootHash, verity.rootHash],
      ["salt", toHex(parameters.salt), verity.salt],
      ["data blocks", parameters.dataBlocks, verity.dataBlocks],
      ["data block size", parameters.dataBlockSize, verity.dataBlockSize],
      ["hash block size", parameters.hashBlockSize, verity.hashBlockSize],
    ];
    return pairs
      .filter(([, stated, actual]) => stated !== actual)
      .map(([what, stated, actual]) => `${where} has ${what} ${actual}, but its verityParams say ${stated}.`);
  });
}

function filesystemProblems(inputs: MeasurementInputs, guest: GuestImage | undefined): string[] {
  const actual = inputs.rootfs?.filesystem?.type;
  if (actual === undefined) return [];
  const stated = [
    ["Kata's rootfs_type", guest?.rootfsType],
    ["The kernel command line (rootfstype)", lastValue(measuredLine(inputs) ?? "", "rootfstype")],
  ] as const;
  return stated
    .filter(([, type]) => type !== undefined && type !== actual)
    .map(([where, type]) => `${where} is ${type}, but the rootfs image holds ${actual}.`);
}
