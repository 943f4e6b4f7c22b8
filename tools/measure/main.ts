import { createHash } from "node:crypto";
import { closeSync, openSync, statSync, writeSync } from "node:fs";
import { parseArgs } from "node:util";
import { chunksOf, hex, largestWhole, rawSha256, sliceSource, toHex } from "../../measure/bytes.ts";
import { readIgvm } from "../../measure/igvm.ts";
import { measureIgvm } from "../../measure/igvm-digest.ts";
import { readFirmware } from "../../measure/ovmf.ts";
import { commandLineHash, firmwareLaunch, launchDigest } from "../../measure/snp.ts";
import { firmwareMrtd, rtmrs } from "../../measure/tdx.ts";
import { buildHashTree, hashTreeSize, type VerityParameters } from "../../measure/verity.ts";
import { kernelVerityParams, veritySuperblock } from "../../measure/verity-superblock.ts";
import { cpuSignature, cpuSignatures, signatureOf, type Vmm, vmms } from "../../measure/vmsa.ts";
import { verityAlgorithms } from "../../runtime/measurement-inputs.ts";
import { Refusal } from "../../runtime/refusal.ts";
import {
  decodeInitdata,
  documentText,
  encodeInitdata,
  hostData,
  initdataDigest,
  isInitdataDisk,
  mrConfigId,
  policyDigest,
  readInitdataDisk,
} from "../../workload/initdata.ts";
import { withFile } from "../files/byte-source.ts";
import { toStderr } from "../programs/progress.ts";
import { manifestValues } from "./reference-values.ts";

const usage = `Computes what a confidential VM will be attested with. Prints JSON.

measure snp      --ovmf FILE --vcpus N
                 (--vcpu-type MODEL | --vcpu-sig VALUE | --vcpu-family N --vcpu-model N --vcpu-stepping N)
                 [--kernel FILE [--initrd FILE] [--append TEXT]] [--guest-features VALUE] [--vmm-type QEMU|ec2|gce]
                 [--snp-ovmf-hash HEX]
                 The launch digest of an SEV-SNP guest; options as sev-snp-measure has them.
measure tdx      --ovmf FILE [--append TEXT [--initrd FILE]]
                 MRTD in both page orders, and the RTMRs that these inputs define.
measure igvm     FILE
                 The SEV-SNP launch digest of an IGVM file, and whether its ID block agrees.
measure verity   DATA [TREE] [--salt HEX] [--hash sha256|sha384|sha512] [--data-block-size BYTES]
                 [--hash-block-size BYTES] [--no-superblock] [--uuid UUID]
                 The dm-verity root hash of a file; with TREE also writes the hash device. Options as veritysetup's,
                 but nothing is random: without --salt there is none, and the superblock of a TREE needs --uuid.
measure initdata (FILE | --decode ANNOTATION) | --policy FILE
                 Digest, HOSTDATA, MRCONFIGID and annotation of an initdata document, or the digest of a policy. FILE may
                 be the disk, too, by which Kata hands the document to the guest.
measure manifest MANIFEST --platform NAME [--vcpus 1-8] [--for table|contrast|trustee|rvps]
                 A payload's reference values from its manifest alone: as a table, as Contrast's manifest and as Trustee's
                 policy have them, or as the message that rvps-tool registers.
measure layers   IMAGE [--ca FILE]
                 The dm-verity root hash of each layer, as tardev-snapshotter of AKS computes it (releases 3.2.0.azl1 to
                 azl5). IMAGE: registry/repository@sha256:…, or a directory or archive (OCI layout, docker save).

CPU models: ${Object.keys(cpuSignatures).join(" ")}`;

interface Accepted<Names extends readonly string[]> {
  /** Options with a value. */
  options: Names;
  /** Options without one. */
  flags?: readonly string[];
  /** How many words may stand beside the options. */
  words?: number;
}

function parse<const Names extends readonly string[]>(args: string[], accepted: Accepted<Names>) {
  const { flags = [], words = 0 } = accepted;
  const options: Record<string, { type: "string" | "boolean" }> = {};
  for (const name of accepted.options) options[name] = { type: "string" };
  for (const name of flags) options[name] = { type: "boolean" };
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
  const extra = positionals[words];
  if (extra !== undefined)
    throw new Refusal("usage", `"${extra}" was not expected. A value of several words has to be quoted.`);
  return {
    values: values as Partial<Record<Names[number], string>>,
    flags: values as Record<string, unknown>,
    positionals,
  };
}

function required(value: string | undefined, what: string): string {
  if (value === undefined) throw new Refusal("usage", `${what} is missing. See measure --help.`);
  return value;
}

/** Decimal or 0x-prefixed. */
function number(text: string, what: string): number {
  const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value))
    throw new Refusal("usage", `${what} is "${text}", expected a number such as 4 or 0x4.`);
  return value;
}

const readWhole = (path: string) =>
  withFile(path, (source) => {
    if (source.size > largestWhole)
      throw new Refusal("file-too-large", `${path} has ${source.size} bytes, expected at most ${largestWhole}.`);
    return source.read(0, source.size);
  });

const digestOf = (path: string, algorithm: "sha256" | "sha384") =>
  withFile(path, (source) => {
    const digest = createHash(algorithm);
    for (const chunk of chunksOf(source)) digest.update(chunk);
    return digest.digest();
  });

function snp(args: string[]): object {
  const { values } = parse(args, {
    options: [
      "ovmf",
      "vcpus",
      "vcpu-type",
      "vcpu-sig",
      "vcpu-family",
      "vcpu-model",
      "vcpu-stepping",
      "kernel",
      "initrd",
      "append",
      "guest-features",
      "vmm-type",
      "snp-ovmf-hash",
      "mode",
    ],
  });
  if (values.mode !== undefined && values.mode !== "snp")
    throw new Refusal("usage", `--mode is "${values.mode}", but only snp can be measured here.`);
  // Scripts pass an empty value where there is none; sev-snp-measure takes it so, too.
  for (const name of ["initrd", "append"] as const) {
    if (values[name] && !values.kernel) throw new Refusal("usage", `--${name} needs --kernel.`);
  }
  const vmm = vmms.find((each) => each === (values["vmm-type"] ?? "QEMU"));
  if (vmm === undefined)
    throw new Refusal("usage", `--vmm-type is "${values["vmm-type"]}", expected one of ${vmms.join(", ")}.`);
  const vcpus = number(required(values.vcpus, "--vcpus"), "--vcpus");
  const guestFeatures = number(values["guest-features"] ?? "0x1", "--guest-features");
  const signature = signatureFrom(values, vmm);
  const bytes = readWhole(required(values.ovmf, "--ovmf"));
  const launch = {
    ...firmwareLaunch(bytes, readFirmware(bytes)),
    ...(values["snp-ovmf-hash"] ? { firmwareDigest: givenDigest(values["snp-ovmf-hash"]) } : {}),
    guestFeatures,
    vmm,
  };
  const kernel = values.kernel
    ? {
        kernel: {
          kernel: digestOf(values.kernel, "sha256"),
          initrd: values.initrd ? digestOf(values.initrd, "sha256") : rawSha256(new Uint8Array()),
          commandLine: commandLineHash(values.append ?? ""),
        },
      }
    : {};
  return {
    measurement: toHex(launchDigest({ ...launch, ...kernel }, signature, vcpus)),
    vcpus,
    cpuSignature: hex(signature),
    guestFeatures: hex(guestFeatures),
    vmm,
    firmwareDigest: toHex(launch.firmwareDigest),
  };
}

type CpuOption = `vcpu-${"type" | "sig" | "family" | "model" | "stepping"}`;

/** Where several options name a CPU, the one that sev-snp-measure would take. */
function signatureFrom(values: Partial<Record<CpuOption, string>>, vmm: Vmm): number {
  const part = (name: CpuOption) => number(required(values[name], `--${name}`), `--${name}`);
  if (values["vcpu-family"] !== undefined)
    return cpuSignature(part("vcpu-family"), part("vcpu-model"), part("vcpu-stepping"));
  if (values["vcpu-sig"] !== undefined) return part("vcpu-sig");
  if (values["vcpu-type"] !== undefined) return signatureOf(values["vcpu-type"]);
  if (vmm !== "QEMU") return 0; // these VMMs set a constant instead
  throw new Refusal("usage", "--vcpu-type or --vcpu-sig is missing. See measure --help.");
}

function givenDigest(text: string): Buffer {
  if (!/^[0-9a-f]{96}$/i.test(text))
    throw new Refusal("usage", `--snp-ovmf-hash is "${text}", expected the 96 hex digits of a digest.`);
  return Buffer.from(text, "hex");
}

function tdx(args: string[]): object {
  const { values } = parse(args, { options: ["ovmf", "initrd", "append", "kernel"] });
  const bytes = readWhole(required(values.ovmf, "--ovmf"));
  const firmware = readFirmware(bytes);
  const registers = rtmrs({
    ...(values.append === undefined ? {} : { commandLine: values.append }),
    ...(values.initrd ? { initrdSha384: digestOf(values.initrd, "sha384") } : {}),
  });
  return {
    mrtd: firmwareMrtd(bytes, firmware, "single-pass"),
    mrtdTwoPass: firmwareMrtd(bytes, firmware, "two-pass"),
    rtmrs: registers.values,
    notPredictable: registers.notPredictable,
  };
}

function igvm(args: string[]): object {
  const { values, positionals } = parse(args, { options: ["igvm"], words: 1 });
  const { policy, idBlock, ...rest } = measureIgvm(
    readIgvm(readWhole(required(positionals[0] ?? values.igvm, "The IGVM file"))),
  );
  return {
    measurement: rest.launchDigest,
    vcpus: rest.vcpus,
    ...(policy === undefined ? {} : { policy: hex(policy) }),
    ...(idBlock === undefined
      ? {}
      : { idBlock: { launchDigest: idBlock.launchDigest, matches: idBlock.matches, guestSvn: idBlock.guestSvn } }),
  };
}

function verity(args: string[]): object {
  const { values, flags, positionals } = parse(args, {
    options: ["salt", "hash", "data-block-size", "hash-block-size", "uuid"],
    flags: ["no-superblock"],
    words: 2,
  });
  const algorithm = verityAlgorithms.find((each) => each === (values.hash ?? "sha256"));
  if (algorithm === undefined)
    throw new Refusal("usage", `--hash is "${values.hash}", expected one of ${verityAlgorithms.join(", ")}.`);
  const salt = values.salt === undefined || values.salt === "-" ? "" : values.salt;
  if (!/^([0-9a-f]{2})*$/i.test(salt)) throw new Refusal("usage", `--salt is "${salt}", expected hex digits.`);
  const dataBlockSize = number(values["data-block-size"] ?? "4096", "--data-block-size");
  const hashBlockSize = number(values["hash-block-size"] ?? "4096", "--hash-block-size");
  const [first, tree] = positionals;
  const data = required(first, "The data file");
  return withFile(data, (source) => {
    const parameters: VerityParameters = {
      algorithm,
      dataBlockSize,
      hashBlockSize,
      dataBlocks: Math.floor(source.size / dataBlockSize),
      salt: Buffer.from(salt, "hex"),
    };
    const treeSize = hashTreeSize(parameters);
    const covered = sliceSource(source, 0, parameters.dataBlocks * dataBlockSize);
    const root =
      tree === undefined
        ? buildHashTree(chunksOf(covered), parameters)
        : writeTree(tree, data, superblockOf(parameters, values.uuid, flags), parameters, chunksOf(covered));
    return {
      rootHash: toHex(root),
      algorithm,
      salt,
      dataBlocks: parameters.dataBlocks,
      dataBlockSize,
      hashBlockSize,
      treeSize,
      // Kata takes no other algorithm, and wants a salt.
      ...(algorithm === "sha256" && salt !== "" ? { kernelVerityParams: kernelVerityParams(parameters, root) } : {}),
    };
  });
}

function superblockOf(
  parameters: VerityParameters,
  uuid: string | undefined,
  flags: Record<string, unknown>,
): Uint8Array {
  if (flags["no-superblock"] === true) return new Uint8Array();
  return veritySuperblock({ ...parameters, uuid: required(uuid, "--uuid (or --no-superblock)") });
}

/** The superblock may be empty; then the tree starts where the file does. */
function writeTree(
  path: string,
  data: string,
  superblock: Uint8Array,
  parameters: VerityParameters,
  chunks: Iterable<Uint8Array>,
): Buffer {
  const [from, to] = [statSync(data), statSync(path, { throwIfNoEntry: false })];
  if (to !== undefined && from.dev === to.dev && from.ino === to.ino)
    throw new Refusal("usage", `${path} is the data file: the tree would be written over it.`);
  const file = openSync(path, "w");
  try {
    // Up to the end of its block: one data block has no tree that would follow.
    const start = superblock.length === 0 ? 0 : parameters.hashBlockSize;
    writeSync(file, Buffer.concat([superblock], start), 0, start, 0);
    return buildHashTree(chunks, parameters, (offset, block) =>
      writeSync(file, block, 0, block.length, start + offset),
    );
  } finally {
    closeSync(file);
  }
}

function initdata(args: string[]): object {
  const { values, positionals } = parse(args, { options: ["policy", "decode"], words: 1 });
  const given = [positionals[0], values.decode, values.policy].filter((each) => each !== undefined);
  if (given.length > 1)
    throw new Refusal("usage", "measure initdata takes one of a FILE, --decode and --policy. See measure --help.");
  if (values.policy !== undefined) return { policyDigest: policyDigest(readWhole(values.policy)) };
  const document =
    values.decode === undefined
      ? documentIn(readWhole(required(positionals[0], "The initdata document")))
      : decodeInitdata(values.decode);
  const { algorithm, digest } = initdataDigest(document);
  return {
    algorithm,
    digest: toHex(digest),
    hostData: toHex(hostData(document)),
    mrConfigId: toHex(mrConfigId(document)),
    ...(values.decode === undefined ? { annotation: encodeInitdata(document) } : { document }),
  };
}

const documentIn = (bytes: Uint8Array): string =>
  isInitdataDisk(bytes) ? readInitdataDisk(bytes) : documentText(bytes, "The initdata document");

async function layers(args: string[]): Promise<object> {
  const { values, positionals } = parse(args, { options: ["ca"], words: 1 });
  const image = required(positionals[0], "The image");
  const ca = values.ca === undefined ? undefined : Buffer.from(readWhole(values.ca)).toString();
  const { imageLayers } = await import("../lock/image-layers.ts");
  return await imageLayers(image, { ca }, toStderr);
}

const commands: Record<string, (args: string[]) => object | Promise<object>> = {
  snp,
  tdx,
  igvm,
  verity,
  initdata,
  manifest: manifestValues,
  layers,
};

export async function main(args: string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined) {
    console.error(usage);
    return 2;
  }
  if (name === "help" || args.some((word) => word === "--help" || word === "-h")) {
    console.log(usage);
    return 0;
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  try {
    if (command === undefined)
      throw new Refusal("usage", `"${name}" is not a command: expected ${Object.keys(commands).join(", ")}.`);
    console.log(JSON.stringify(await command(rest), null, 2));
    return 0;
  } catch (error) {
    // parseArgs throws TypeErrors with a code for unknown options: those are the user's, as are files that cannot be written.
    const { code = "", syscall } = error as NodeJS.ErrnoException;
    const mistake = code === "usage" || code.startsWith("ERR_PARSE_ARGS");
    if (!mistake && !(error instanceof Refusal) && syscall === undefined) throw error;
    console.error(`measure: ${(error as Error).message}`);
    return mistake ? 2 : 1;
  }
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
