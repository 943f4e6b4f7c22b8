import { createDecipheriv, pbkdf2 } from "node:crypto";
import { promisify } from "node:util";

/**
 * Whether a stack's `encryptionsalt` was made with this passphrase.
 *
 * @param salt `v1:<salt>:v1:<nonce>:<ciphertext and tag>`, base64: AES-256-GCM under PBKDF2-SHA-256 of a million rounds,
 *   as the engine's passphrase secrets manager writes it
 */
export async function opensSalt(salt: string, passphrase: string): Promise<boolean> {
  const [, keySalt = "", , nonce = "", sealed = ""] = salt.split(":");
  const key = await promisify(pbkdf2)(passphrase, Buffer.from(keySalt, "base64"), 1_000_000, 32, "sha256");
  const bytes = Buffer.from(sealed, "base64");
  try {
    const decipher = createDecipheriv("aes-256-gcm", key, Buffer.from(nonce, "base64"));
    decipher.setAuthTag(bytes.subarray(-16));
    decipher.update(bytes.subarray(0, -16));
    decipher.final();
    return true;
  } catch {
    return false;
  }
}
