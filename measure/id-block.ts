import { p384 } from "@noble/curves/nist.js";
import { hypervisorAnnotations } from "../runtime/annotations.ts";
import { Refusal } from "../runtime/refusal.ts";
import { sha384 } from "./bytes.ts";
import { defaultGuestPolicy } from "./guest-policy.ts";
import { keyDigest, publicKeyBytes } from "./id-key.ts";

/** What an SNP ID block fixes about a guest (firmware ABI, publication 56860, table 75). Ids and digest as hex. */
export interface IdBlock {
  launchDigest: string;
  /** 16 bytes. */
  familyId: string;
  imageId: string;
  guestSvn: number;
  policy: bigint;
}

/** Contrast's ids: family 1, image 2, security version 2. */
const contrastIds = { familyId: `01${"0".repeat(30)}`, imageId: `02${"0".repeat(30)}`, guestSvn: 2 } as const;

/** 96 bytes: digest[48], family[16], image[16], u32 version 1, u32 security version, u64 policy; little-endian. */
export function idBlockBytes(block: IdBlock): Buffer {
  const bytes = Buffer.alloc(96);
  bytes.set(field(block.launchDigest, 48, "launch digest"), 0);
  bytes.set(field(block.familyId, 16, "family id"), 48);
  bytes.set(field(block.imageId, 16, "image id"), 64);
  bytes.writeUInt32LE(1, 80);
  bytes.writeUInt32LE(block.guestSvn, 84);
  bytes.writeBigUInt64LE(block.policy, 88);
  return bytes;
}

function field(text: string, length: number, what: string): Buffer {
  if (!new RegExp(`^[0-9a-fA-F]{${length * 2}}$`).test(text)) {
    throw new Refusal("id-block", `The ${what} "${text}" of an ID block is not ${length} bytes of hex.`);
  }
  return Buffer.from(text, "hex");
}

/** A 384-bit number in the firmware's 72-byte little-endian field. */
function littleEndian(value: bigint): Buffer {
  const bytes = Buffer.alloc(72);
  bytes.set(Buffer.from(value.toString(16).padStart(96, "0"), "hex").reverse());
  return bytes;
}

/** Affine coordinates. */
interface Point {
  x: bigint;
  y: bigint;
}

/**
 * The ID block with an authentication structure that anybody can compute and nobody holds a key for: the signature is fixed
 * to (r, s) = (2, 1), and the P-384 key under which it is valid is recovered from it, the one of the two with the smaller
 * (x, y). `auth` is 4096 bytes: u32 key algorithm 1 at 0, u32 author algorithm 0, signature at 0x40, key at 0x240.
 */
export function keylessIdBlock(block: IdBlock): { block: Buffer; auth: Buffer; key: Point; idKeyDigest: string } {
  const bytes = idBlockBytes(block);
  const digest = sha384(bytes);
  const keyAt = (yParity: number): Point => new p384.Signature(2n, 1n, yParity).recoverPublicKey(digest).toAffine();
  const [first, second] = [keyAt(0), keyAt(1)];
  const key = first.x < second.x || (first.x === second.x && first.y < second.y) ? first : second;
  const [qx, qy] = [littleEndian(key.x), littleEndian(key.y)];
  const auth = Buffer.alloc(4096);
  auth.writeUInt32LE(1, 0);
  auth.set(littleEndian(2n), 0x40);
  auth.set(littleEndian(1n), 0x40 + 72);
  auth.set(publicKeyBytes(2, qx, qy), 0x240);
  return { block: bytes, auth, key, idKeyDigest: keyDigest(2, qx, qy) };
}

/**
 * The annotations that make Contrast's Kata start a pod's guest only with these launch digests: a set for each generation
 * of CPU, of which Kata uses its host's. Block and authentication structure as base64.
 */
export function idBlockAnnotations(rows: readonly { product?: string; measurement: string }[]): Record<string, string> {
  const annotations = rows.flatMap(({ product, measurement }) => {
    if (product === undefined) return [];
    const { block, auth } = keylessIdBlock({ ...contrastIds, launchDigest: measurement, policy: defaultGuestPolicy });
    const name = (key: string) => `${hypervisorAnnotations}${key}_${product}`;
    return [
      [name("snp_id_block"), block.toString("base64")],
      [name("snp_id_auth"), auth.toString("base64")],
      [name("snp_guest_policy"), String(defaultGuestPolicy)],
    ];
  });
  return Object.fromEntries(annotations);
}
