import { verityAlgorithms } from "../runtime/measurement-inputs.ts";
import { Refusal } from "../runtime/refusal.ts";
import type { VerityParameters } from "./verity.ts";

/** Parameters in order, as the kernel splits them: at blanks outside double quotes (kernel lib/cmdline.c, next_arg). */
export function parseCommandLine(text: string): { key: string; value?: string }[] {
  return (text.match(/(?:[^\s"]|"[^"]*(?:"|$))+/g) ?? []).map((word) => {
    const at = word.indexOf("=");
    const plain = (part: string) => part.replace(/^"|"$/g, "");
    return at < 0
      ? { key: plain(word) }
      : { key: word.slice(0, at).replace(/^"/, ""), value: plain(word.slice(at + 1)) };
  });
}

/** The last value, which is the one that counts. */
export const lastValue = (text: string, key: string): string | undefined =>
  parseCommandLine(text).findLast((each) => each.key === key)?.value;

/** A dm-verity target of `dm-mod.create=`: what the kernel maps before it mounts the root file system. */
export interface VerityTarget extends VerityParameters {
  rootHash: string;
  dataDevice: string;
  hashDevice: string;
  /** First block of the tree on the hash device: 0 without a superblock. */
  hashStart: number;
  /** 512-byte sectors of the mapped device. */
  sectors: number;
}

/**
 * The verity table of a command line: `dm-mod.create="name,uuid,minor,flags,0 <sectors> verity 1 <data> <hash> <data block>
 * <hash block> <blocks> <start> <algorithm> <root> <salt>"` (kernel Documentation/admin-guide/device-mapper).
 */
export function verityTarget(commandLine: string): VerityTarget | undefined {
  const value = lastValue(commandLine, "dm-mod.create");
  const words = value?.match(
    /(\d+) verity 1 (\S+) (\S+) (\d+) (\d+) (\d+) (\d+) (\S+) ([0-9a-fA-F]+) ([0-9a-fA-F]+|-)/,
  );
  if (value === undefined || !value.includes(" verity ")) return undefined;
  if (!words)
    throw new Refusal(
      "verity-parameters",
      `The kernel command line has the dm-verity table "${value}", which cannot be read.`,
    );
  const [, sectors, dataDevice = "", hashDevice = "", dataBlock, hashBlock, blocks, start, name, root = "", salt = ""] =
    words;
  const algorithm = verityAlgorithms.find((each) => each === name);
  if (algorithm === undefined)
    throw new Refusal(
      "verity-parameters",
      `The kernel command line's dm-verity table uses the algorithm "${name}", expected one of ${verityAlgorithms.join(", ")}.`,
    );
  return {
    algorithm,
    rootHash: root.toLowerCase(),
    salt: salt === "-" ? new Uint8Array() : Buffer.from(salt, "hex"),
    dataBlockSize: Number(dataBlock),
    hashBlockSize: Number(hashBlock),
    dataBlocks: Number(blocks),
    hashStart: Number(start),
    sectors: Number(sectors),
    dataDevice,
    hashDevice,
  };
}
