import { sha384, toHex } from "./bytes.ts";

/** ECDSA public key structure of 0x404 bytes: u32 curve (2 = P-384), qx[72], qy[72], zeroes. */
export function publicKeyBytes(curve: number, qx: Uint8Array, qy: Uint8Array): Buffer {
  const bytes = Buffer.alloc(0x404);
  bytes.writeUInt32LE(curve, 0);
  bytes.set(qx, 4);
  bytes.set(qy, 76);
  return bytes;
}

/** What the attestation report shows as ID_KEY_DIGEST. Coordinates little-endian. */
export const keyDigest = (curve: number, qx: Uint8Array, qy: Uint8Array): string =>
  toHex(sha384(publicKeyBytes(curve, qx, qy)));
