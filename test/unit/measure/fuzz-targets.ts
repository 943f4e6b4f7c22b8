import { crc32, gunzipSync } from "node:zlib";
import fc from "fast-check";
import { sourceOf } from "../../../measure/bytes.ts";
import { collectInputs } from "../../../measure/collect-inputs.ts";
import { readIgvm } from "../../../measure/igvm.ts";
import { measureIgvm } from "../../../measure/igvm-digest.ts";
import { kataVerityTable } from "../../../measure/kata-kernel-command-line.ts";
import { parseCommandLine, verityTarget } from "../../../measure/kernel-command-line.ts";
import { readKernel } from "../../../measure/linux.ts";
import { readFirmware } from "../../../measure/ovmf.ts";
import { readFilesystem, readPartitions } from "../../../measure/partitions.ts";
import { digestBeforeVcpus, firmwareLaunch } from "../../../measure/snp.ts";
import { tardevRootHash } from "../../../measure/tardev.ts";
import { firmwareMrtd } from "../../../measure/tdx.ts";
import { parseKernelVerityParams, readVeritySuperblock, veritySuperblock } from "../../../measure/verity-superblock.ts";
import { decodeInitdata, encodeInitdata, parseInitdata, readInitdataDisk } from "../../../workload/initdata.ts";
import { erofs, firmware, kernel, rootfs, salt } from "./pod-vm.ts";
import { expected, vector } from "./vectors.ts";

interface Reader {
  /** A good file, which is damaged. */
  sample: Uint8Array;
  read(bytes: Uint8Array): unknown;
}

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("utf8");
const igvm = vector("igvm-tooling-test_bzImage-x64-enc.igvm");

/** Every reader of foreign bytes, with what is computed from them: the targets of fuzzing. */
export const readers = {
  firmware: {
    sample: firmware(),
    read: (bytes) => {
      const read = readFirmware(bytes);
      firmwareMrtd(bytes, read);
      return digestBeforeVcpus({ ...firmwareLaunch(bytes, read), guestFeatures: 1 });
    },
  },
  igvm: { sample: igvm, read: (bytes) => measureIgvm(readIgvm(bytes)) },
  /** Corrects the checksum, so that lies that it would hide are reached. */
  "igvm behind its checksum": { sample: igvm, read: (bytes) => measureIgvm(readIgvm(withChecksum(bytes))) },
  kernel: { sample: kernel(), read: (bytes) => readKernel(bytes, bytes.length) },
  "disk image": { sample: rootfs().image, read: (bytes) => readPartitions(sourceOf(bytes)) },
  "rootfs image": {
    sample: rootfs({ superblock: true }).image,
    read: (bytes) => collectInputs({ rootfs: sourceOf(bytes) }),
  },
  "file system": { sample: erofs().subarray(0, 8192), read: (bytes) => readFilesystem(sourceOf(bytes)) },
  "verity superblock": {
    sample: veritySuperblock({
      algorithm: "sha256",
      dataBlockSize: 4096,
      hashBlockSize: 4096,
      dataBlocks: 64,
      salt,
      uuid: "00000000-0000-4000-8000-000000000001",
    }),
    read: readVeritySuperblock,
  },
  "verity parameters": {
    sample: Buffer.from(rootfs().verityParams),
    read: (bytes) => parseKernelVerityParams(text(bytes)),
  },
  "command line": {
    sample: Buffer.from(`quiet ${kataVerityTable(rootfs().verityParams)} root=/dev/dm-0`),
    read: (bytes) => [parseCommandLine(text(bytes)), verityTarget(text(bytes))],
  },
  "initdata disk": { sample: vector("initdata.img"), read: readInitdataDisk },
  "initdata annotation": {
    sample: Buffer.from(encodeInitdata(expected.initdata.toml)),
    read: (bytes) => parseInitdata(decodeInitdata(text(bytes))),
  },
  "image layer": {
    sample: gunzipSync(vector("layer.tar.gz")).subarray(0, 32 << 10),
    read: (bytes) => tardevRootHash([withTarChecksums(bytes)]),
  },
  "initdata document": { sample: Buffer.from(expected.initdata.toml), read: (bytes) => parseInitdata(text(bytes)) },
} satisfies Record<string, Reader>;

function withChecksum(bytes: Uint8Array): Uint8Array {
  if (bytes.length < 32) return bytes;
  const copy = Buffer.from(bytes);
  const end = Math.min(copy.readUInt32LE(8) + copy.readUInt32LE(12), copy.length);
  copy.writeUInt32LE(0, 20);
  copy.writeUInt32LE(crc32(copy.subarray(0, end)), 20);
  return copy;
}

/** A wrong checksum would hide every other lie. */
function withTarChecksums(bytes: Uint8Array): Uint8Array {
  const copy = Buffer.from(bytes);
  for (let at = 0; at + 512 <= copy.length; at += 512) {
    const header = copy.subarray(at, at + 512);
    if (header.toString("latin1", 257, 262) !== "ustar") continue;
    header.fill(" ", 148, 156);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, "0")}\0`, 148, "latin1");
  }
  return copy;
}

/** Values that headers lie with. */
const lies = [0, 1, 0x7f, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff];

/** A file cut somewhere, with a few fields or bytes changed: half of them where headers are, at its ends. */
export function mutations(sample: Uint8Array): fc.Arbitrary<Uint8Array> {
  const end = sample.length - 1;
  const near = Math.min(end, 2048);
  const offset = fc.oneof(
    fc.nat(near),
    fc.nat(near).map((at) => end - at),
    fc.nat(end),
  );
  const value = fc.oneof(fc.constantFrom(...lies), fc.nat(0xff), fc.nat());
  const change = fc.record({ offset, value, width: fc.constantFrom(1, 2, 4, 8) });
  const length = fc.oneof(
    { weight: 4, arbitrary: fc.constant(sample.length) },
    { weight: 1, arbitrary: fc.nat(sample.length) },
  );
  return fc.record({ length, changes: fc.array(change, { maxLength: 4 }) }).map(({ length, changes }) => {
    const copy = Buffer.from(sample.subarray(0, length));
    for (const { offset, value, width } of changes) {
      for (let byte = 0; byte < width && offset + byte < copy.length; byte += 1)
        copy[offset + byte] = Math.floor(value / 256 ** byte) & 0xff;
    }
    return copy;
  });
}
