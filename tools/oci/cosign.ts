import { createPublicKey, type KeyObject, verify } from "node:crypto";
import * as z from "zod";
import { sha256 } from "../../runtime/canonical.ts";
import { fromJson } from "../../runtime/from-json.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { readText } from "../http/client.ts";
import { manifestSchema, manifestType } from "./documents.ts";
import type { Repository } from "./registry.ts";

/** A publisher's public key, as `cosign generate-key-pair` and `cosign public-key` write it (PEM). @throws Refusal */
export function publisherKey(pem: string, file: string): KeyObject {
  try {
    if (!pem.includes("PRIVATE")) return createPublicKey(pem);
  } catch {
    // said below
  }
  throw new Refusal("cosign-key", `${file} is no public key in PEM, such as cosign.pub (-----BEGIN PUBLIC KEY-----).`);
}

/** "sha256:<hex>" of the key (its SubjectPublicKeyInfo), for people who compare it with what the publisher says. */
export const fingerprint = (key: KeyObject): string => `sha256:${sha256(key.export({ type: "spki", format: "der" }))}`;

const layerType = "application/vnd.dev.cosign.simplesigning.v1+json";
const payloadSchema = z.object({
  critical: z.object({
    image: z.object({ "docker-manifest-digest": z.string() }),
    type: z.literal("cosign container image signature"),
  }),
});
/** More than anybody signs an image; each costs a request. */
const mostSignatures = 50;

/**
 * Makes sure that the owner of the key signed this very digest: the image `sha256-<hex>.sig` beside it holds statements
 * ("simple signing"), each with a signature in its annotation. (cosign's SIGNATURE_SPEC.md; ECDSA, RSA or Ed25519.)
 *
 * @param digest of the manifest or index that was asked for, "sha256:…"
 * @throws Refusal unless one of the statements is signed with the key and names the digest
 */
export async function requireSignature(source: Repository, digest: string, key: KeyObject): Promise<void> {
  const tag = `${digest.replace(":", "-")}.sig`;
  const answer = await source.send(
    { method: "GET", path: `manifests/${tag}`, headers: { accept: manifestType } },
    [200, 404],
  );
  const text = await readText(answer);
  const layers = answer.statusCode === 200 ? fromJson.pipe(manifestSchema).safeParse(text).data?.layers : [];
  const statements = (layers ?? []).filter(({ mediaType }) => mediaType === layerType).slice(0, mostSignatures);
  for (const { digest: blob, annotations } of statements) {
    const signature = annotations?.["dev.cosignproject.cosign/signature"];
    if (signature === undefined) continue;
    const payload = await readText(await source.send({ method: "GET", path: `blobs/${blob}` }, [200]));
    if (`sha256:${sha256(payload)}` !== blob || !isSignedBy(key, payload, signature)) continue;
    if (fromJson.pipe(payloadSchema).safeParse(payload).data?.critical.image["docker-manifest-digest"] === digest)
      return;
  }
  throw new Refusal(
    "not-signed",
    `${source.reference}@${digest} is not signed with the key ${fingerprint(key)}: ${
      answer.statusCode === 404
        ? `the repository has no signatures of it (${tag})`
        : `none of its ${statements.length} signatures is of this key and names this digest`
    }. Do not use it unless its publisher confirms the digest in another way.`,
  );
}

/** ECDSA and RSA sign the SHA-256 of the statement, Ed25519 the statement itself. */
function isSignedBy(key: KeyObject, payload: string, signature: string): boolean {
  const algorithm = key.asymmetricKeyType === "ed25519" ? null : "sha256";
  try {
    return verify(algorithm, Buffer.from(payload), key, Buffer.from(signature, "base64"));
  } catch {
    return false;
  }
}
