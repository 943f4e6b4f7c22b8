import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { rawSha256 } from "../../../measure/bytes.ts";

const folder = new URL("../../vectors/measure/", import.meta.url);
export const vector = (file: string): Uint8Array => readFileSync(fileURLToPath(new URL(file, folder)));

interface Expected {
  snp: {
    ovmf: string;
    cpu: string;
    sig: string;
    vcpus: number;
    guestFeatures: number;
    kernelInitrdDevNull: boolean;
    append: string | null;
    vmm: string;
    digest: string;
  }[];
  vmsaSha384: { cpu: string; guestFeatures: number; bsp: string; ap: string }[];
  verity: { roots: { data?: string; dataBs: number; hashBs: number; salt: string; root: string }[] };
  initdata: { toml: string; sha256: string; sha384: string };
  mrtd: { singlePass: string; twoPass: string }[];
  igvm: { file: string; digest: string }[];
  authenticode: { file: string; sha256: string; sha384: string };
  /** By lc, lp and pb. */
  lzma: { size: number; sha256: string; base64: Record<string, string> };
  rtmr1: { calling: string; separator: string; exit: string; exited: string; value: string };
  idblock: { idblockSha256: string; idauthSha256: string; qx: string; qy: string; idKeyDigest: string };
}
export const expected = JSON.parse(Buffer.from(vector("expected.json")).toString()) as Expected;
/** SHA-256 of an empty kernel or initrd. */
export const nothing = rawSha256(new Uint8Array());
export const sum = (bytes: Uint8Array): string => rawSha256(bytes).toString("hex");
