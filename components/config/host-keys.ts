import { createHash } from "node:crypto";

/** How many bytes the key itself has, behind its type; of an ECDSA key: the point on the curve that its type names. */
const keyTypes = new Map([
  ["ssh-ed25519", 32],
  ["ecdsa-sha2-nistp256", 65],
  ["ecdsa-sha2-nistp384", 97],
  ["ecdsa-sha2-nistp521", 133],
]);

/**
 * Type and key alone, of any form in which people have them: a line of known_hosts (with host names, hashed or not) or of
 * a .pub file (with a comment). What is neither stays as it is.
 */
export function typeAndKey(text: string): string {
  const [line = "", ...others] = text.trim().split(/\r?\n/);
  const words = line.trim().split(/\s+/);
  const at = keyTypes.has(words[0] ?? "") ? 0 : 1;
  const [type = "", key] = words.slice(at);
  if (others.length > 0 || words[0]?.startsWith("@") || !keyTypes.has(type) || key === undefined) return text;
  return `${type} ${key}`;
}

/** What is wrong with a host key that `typeAndKey` returned; undefined: nothing. */
export function hostKeyMistake(text: string): string | undefined {
  if (text.trim().includes("\n")) return "must be one key, on one line";
  const [type = "", key = ""] = text.split(" ");
  const size = keyTypes.get(type);
  if (size !== undefined) {
    return new RegExp(`^${wholeKey(type, size)}$`).test(`${type} ${key}`)
      ? undefined
      : `must be the whole key: what follows ${type} is not one, but may be a part of it or a key of another type`;
  }
  if (/^(\d+ )?(SHA256|MD5):/.test(text))
    return "is a fingerprint, which a host's key cannot be told from. Take the key that `ssh-keyscan -t ed25519 HOST` prints, once `ssh-keygen -lf` shows this fingerprint of it";
  if (text.startsWith("@"))
    return "must be the host's own key: marked lines of known_hosts, such as @cert-authority, cannot be used";
  return `must be type and key as in known_hosts, the type one of ${[...keyTypes.keys()].join(", ")}`;
}

/** What an editor can check while a stack file is written. */
export const hostKeyPattern = `^(?!@)(\\S+\\s+)?(${[...keyTypes].map(([type, size]) => wholeKey(type, size)).join("|")})([ \\t].*)?\\s*$`;

/**
 * RFC 4253, 6.6, RFC 5656, 3.1 and RFC 8709, 4: strings, each behind its length: the type, of ECDSA the curve, and the key.
 * In base64, what comes before the key is always the same, and the length is fixed.
 */
function wholeKey(type: string, size: number): string {
  const texts = [type, ...(type.startsWith("ecdsa-sha2-") ? [type.slice("ecdsa-sha2-".length)] : [])];
  const lengthOf = (length: number) => [0, 0, 0, length];
  const begin = Buffer.from([
    ...texts.flatMap((text) => [...lengthOf(text.length), ...Buffer.from(text)]),
    ...lengthOf(size),
  ]);
  const bytes = begin.length + size;
  // A character of base64 stands for six bits: what the next byte decides is left out.
  const decided = Math.floor((begin.length * 8) / 6);
  const rest = Math.ceil((bytes * 8) / 6) - decided;
  const start = begin.toString("base64").slice(0, decided).replaceAll("+", "\\+");
  return `${type} ${start}[A-Za-z0-9+/]{${rest}}${"=".repeat((3 - (bytes % 3)) % 3)}`;
}

/** As `ssh-keygen -l` shows it: SHA-256 of the key, in base64 without padding. */
export function fingerprintOf(hostKey: string): string {
  const [, key = ""] = hostKey.split(/\s+/);
  return `SHA256:${createHash("sha256").update(Buffer.from(key, "base64")).digest("base64").replace(/=+$/, "")}`;
}
