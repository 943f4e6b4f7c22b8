import { createHash, type Hash } from "node:crypto";
import type { FileRole, GuestImage } from "../runtime/manifest.ts";
import type { MeasurementInputs, RootfsInputs } from "../runtime/measurement-inputs.ts";
import { Refusal } from "../runtime/refusal.ts";
import { offersBootFiles, takesBootFiles } from "./boot-files.ts";
import {
  type ByteSource,
  chunksOf,
  copyOf,
  FormatError,
  hex,
  largestWhole,
  sliceSource,
  toHex,
  View,
} from "./bytes.ts";
import { keyDigest } from "./id-key.ts";
import { readIgvm } from "./igvm.ts";
import { measureIgvm } from "./igvm-digest.ts";
import { verityTarget } from "./kernel-command-line.ts";
import { initrdFormat, readKernel } from "./linux.ts";
import { readFirmware } from "./ovmf.ts";
import { type Partition, partitionTypes, readFilesystem, readPartitions } from "./partitions.ts";
import { authenticode } from "./pe.ts";
import { firmwareLaunch } from "./snp.ts";
import { mrtd } from "./tdx.ts";
import { compareHashTree, hashTreeSize, type VerityParameters } from "./verity.ts";
import { hasVeritySuperblock, parseKernelVerityParams, readVeritySuperblock } from "./verity-superblock.ts";

export interface CollectOptions {
  /** What the manifest says about the guest image. */
  guest?: GuestImage | undefined;
  /** The measured command line, if the payload's builder published it. */
  commandLine?: string | undefined;
  /** SEV_FEATURES of the guest; 0x1 unless the host kernel is 6.6 or 6.7 (0x21). */
  guestFeatures?: number | undefined;
  /** RTMR0 by vCPU count, where somebody knows it. */
  rtmr0?: Partial<Record<string, string>> | undefined;
}

/**
 * Collects the inputs of launch measurements from a payload's files, reading each once. Throws a FormatError that names
 * file, problem and offset, or a Refusal when the rootfs image's hash tree does not belong to its data.
 */
export function collectInputs(
  files: Partial<Record<FileRole, ByteSource>>,
  options: CollectOptions = {},
): MeasurementInputs {
  const { firmware, kernel, initrd, igvm, rootfs, vmm } = files;
  const { commandLine } = options;
  const inIgvm = igvm && collectIgvm(igvm);
  const boot = inIgvm?.commandLine === undefined ? options : { ...options, commandLine: inIgvm.commandLine };
  return {
    ...(commandLine === undefined || kernel === undefined ? {} : { commandLine }),
    ...(kernel === undefined ? {} : { kernel: collectKernel(kernel) }),
    ...(initrd === undefined ? {} : { initrd: collectInitrd(initrd) }),
    ...(firmware === undefined ? {} : collectFirmware(firmware, options)),
    // Only a VMM that boots firmware passes a kernel on.
    ...(vmm === undefined || firmware === undefined
      ? {}
      : { vmm: { sha256: sha256Of(vmm), bootFiles: offersBootFiles(vmm) } }),
    ...(inIgvm === undefined ? {} : { igvm: inIgvm }),
    ...(rootfs === undefined ? {} : { rootfs: collectRootfs(rootfs, boot) }),
  };
}

function readInto(source: ByteSource, ...hashes: Hash[]): void {
  for (const chunk of chunksOf(source)) for (const hash of hashes) hash.update(chunk);
}

function sha256Of(source: ByteSource): string {
  const sha256 = createHash("sha256");
  readInto(source, sha256);
  return sha256.digest("hex");
}

function wholeOf(source: ByteSource, file: string): Uint8Array {
  if (source.size > largestWhole)
    throw new FormatError(file, 0, `${source.size} bytes is more than ${largestWhole}, which no such file has`);
  // Its sources reuse one buffer: what is read again, such as for the file's digest, would stand in it.
  return copyOf(source.read(0, source.size));
}

const headOf = (source: ByteSource) => source.read(0, Math.min(source.size, 65536));

function collectKernel(source: ByteSource): NonNullable<MeasurementInputs["kernel"]> {
  const { version, commandLineLimit, efiStub } = readKernel(headOf(source), source.size);
  return {
    sha256: sha256Of(source),
    efiStub,
    ...(efiStub ? { authenticode: toHex(authenticode(source, "sha384")) } : {}),
    ...(version === undefined ? {} : { version }),
    ...(commandLineLimit === undefined ? {} : { commandLineLimit }),
  };
}

function collectInitrd(source: ByteSource): NonNullable<MeasurementInputs["initrd"]> {
  const format = initrdFormat(headOf(source));
  const [sha256, sha384] = [createHash("sha256"), createHash("sha384")];
  readInto(source, sha256, sha384);
  return { sha256: sha256.digest("hex"), sha384: sha384.digest("hex"), format };
}

type FirmwareInputs = Pick<MeasurementInputs, "firmware" | "snp" | "tdx">;

function collectFirmware(source: ByteSource, { guestFeatures = 1, rtmr0 }: CollectOptions): FirmwareInputs {
  const bytes = wholeOf(source, "firmware");
  const firmware = readFirmware(bytes);
  const inputs: FirmwareInputs = { firmware: { sha256: sha256Of(source) } };
  if (firmware.sev !== undefined && firmware.resetEip !== undefined) {
    const launch = firmwareLaunch(bytes, firmware);
    inputs.snp = {
      firmwareDigest: toHex(launch.firmwareDigest),
      sections: firmware.sev,
      ...(launch.hashTableGpa === undefined ? {} : { hashTableGpa: launch.hashTableGpa }),
      resetEip: launch.resetEip,
      guestFeatures,
    };
  }
  if (firmware.tdx !== undefined) {
    inputs.tdx = {
      mrtd: { singlePass: mrtd(bytes, firmware.tdx, "single-pass"), twoPass: mrtd(bytes, firmware.tdx, "two-pass") },
      bootFiles: takesBootFiles(bytes),
      ...(rtmr0 === undefined ? {} : { rtmr0 }),
    };
  }
  return inputs;
}

function collectIgvm(source: ByteSource): NonNullable<MeasurementInputs["igvm"]> {
  const { launchDigest, vcpus, commandLine, policy, idBlock } = measureIgvm(readIgvm(wholeOf(source, "IGVM file")));
  return {
    sha256: sha256Of(source),
    launchDigest,
    vcpus,
    ...(commandLine === undefined ? {} : { commandLine }),
    ...(policy === undefined ? {} : { policy: hex(policy) }),
    ...(idBlock === undefined
      ? {}
      : {
          idBlock: {
            launchDigest: idBlock.launchDigest,
            familyId: idBlock.familyId,
            imageId: idBlock.imageId,
            guestSvn: idBlock.guestSvn,
            idKeyDigest: keyDigest(idBlock.idKey.curve, idBlock.idKey.qx, idBlock.idKey.qy),
          },
        }),
  };
}

/** The same of an extension of the guest's image, whose dm-verity parameters its builder published. */
export const collectExtension = (source: ByteSource, verityParams: string): RootfsInputs =>
  collectRootfs(source, { guest: { rootfsType: "erofs", kernelParams: "", kernelVerityParams: verityParams } });

function collectRootfs(source: ByteSource, options: CollectOptions): RootfsInputs {
  return { sha256: sha256Of(source), ...collectPartitions(source, options) };
}

function collectPartitions(source: ByteSource, options: CollectOptions): RootfsInputs {
  const partitions = readPartitions(source);
  const byType = (type: string, index: number): Partition | undefined =>
    partitions.find((each) => each.type === type) ?? partitions.find((each) => each.index === index);
  const data = byType(partitionTypes.rootX64, 1);
  const tree = byType(partitionTypes.rootVerityX64, 2);
  if (data === undefined) return {};
  const dataSource = sliceSource(source, data.offset, data.size);
  const filesystem = readFilesystem(dataSource, data.offset);
  const verity =
    tree === undefined
      ? undefined
      : collectVerity(dataSource, sliceSource(source, tree.offset, tree.size), tree.offset, options);
  return {
    ...(filesystem === undefined ? {} : { filesystem: { type: filesystem.type, size: filesystem.size } }),
    ...(verity === undefined ? {} : { verity }),
  };
}

/** Parameters are in the superblock, else in Kata's parameters, else on the command line. */
function collectVerity(
  data: ByteSource,
  hashPartition: ByteSource,
  base: number,
  options: CollectOptions,
): RootfsInputs["verity"] {
  const head = copyOf(hashPartition.read(0, Math.min(512, hashPartition.size)));
  const superblock = hasVeritySuperblock(head);
  const parameters = superblock ? readVeritySuperblock(head, base) : givenParameters(options);
  if (parameters === undefined) return undefined;
  const { algorithm, dataBlockSize, hashBlockSize, dataBlocks, salt } = parameters;
  const view = new View(head, "rootfs image", base);
  if (dataBlocks * dataBlockSize > data.size) {
    view.fail(
      0,
      `the dm-verity tree covers ${dataBlocks} blocks of ${dataBlockSize} bytes, but the data partition has ${data.size} bytes`,
    );
  }
  const start = superblock ? hashBlockSize : 0;
  const needed = start + hashTreeSize(parameters);
  if (needed > hashPartition.size)
    view.fail(0, `the dm-verity tree needs ${needed} bytes, but its partition has ${hashPartition.size}`);
  const covered = sliceSource(data, 0, dataBlocks * dataBlockSize);
  const stored = sliceSource(hashPartition, start, hashPartition.size - start);
  const { rootHash, wrong } = compareHashTree(detached(covered), stored, parameters);
  if (wrong[0] !== undefined) {
    throw new Refusal(
      "verity-mismatch",
      `The rootfs image's dm-verity tree does not belong to its data: ${wrong.length === 8 ? "8 or more" : wrong.length} hash blocks differ, ` +
        `one at offset ${hex(base + start + wrong[0])}. The guest would refuse to read it; the image is damaged or has another salt.`,
    );
  }
  return {
    algorithm,
    dataBlockSize,
    hashBlockSize,
    dataBlocks,
    salt: toHex(salt),
    rootHash: toHex(rootHash),
    superblock,
  };
}

/** Both sources share a reader that reuses its buffer: the data's chunk must survive reads of the tree. */
const detached = (source: ByteSource): ByteSource => ({
  size: source.size,
  read: (offset, length) => copyOf(source.read(offset, length)),
});

function givenParameters(options: CollectOptions): VerityParameters | undefined {
  const { guest } = options;
  if (guest?.kernelVerityParams) return parseKernelVerityParams(guest.kernelVerityParams).parameters;
  const line = options.commandLine ?? guest?.kernelParams;
  return line === undefined ? undefined : verityTarget(line);
}
