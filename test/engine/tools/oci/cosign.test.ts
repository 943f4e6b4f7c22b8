import { generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { sha256 } from "../../../../runtime/canonical.ts";
import { discard } from "../../../../tools/http/client.ts";
import { pushImage } from "../../../../tools/image/push.ts";
import { vouched } from "../../../../tools/lock/summary.ts";
import { fingerprint, publisherKey } from "../../../../tools/oci/cosign.ts";
import { fetchImage } from "../../../../tools/oci/image.ts";
import { buildSimpleImage } from "../../../../tools/oci/one-layer.ts";
import { Repository } from "../../../../tools/oci/registry.ts";
import { startRegistry, type TestRegistry } from "./registry.ts";

const quiet = () => {};
let directory: string;
let registry: TestRegistry;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "cosign-"));
  registry = await startRegistry("open");
});
afterAll(async () => {
  await registry.stop();
  await rm(directory, { recursive: true });
});

const ecdsa = () => generateKeyPairSync("ec", { namedCurve: "P-256" });
const statement = (digest: string) =>
  JSON.stringify({
    critical: {
      identity: { "docker-reference": "x" },
      image: { "docker-manifest-digest": digest },
      type: "cosign container image signature",
    },
    optional: null,
  });

/** Pushes an image; returns its reference with the scheme, its digest, and the repository. */
async function image(name: string) {
  const layoutDir = join(directory, name);
  await buildSimpleImage({ layoutDir, entries: [{ path: "f", type: "file", content: name, mode: 0o644 }] }, quiet);
  const reference = await pushImage({ layoutDir, registry: registry.url, repository: name }, quiet);
  const digest = reference.slice(reference.indexOf("@") + 1);
  return {
    reference: `http://${reference}`,
    digest,
    repository: new Repository({ registry: registry.url, repository: name }),
  };
}

async function pushBlob(repository: Repository, content: string): Promise<string> {
  const digest = `sha256:${sha256(content)}`;
  const begin = await repository.send(
    { method: "POST", path: "blobs/uploads/", headers: { "content-length": "0" } },
    [202],
  );
  discard(begin);
  const target = new URL(begin.headers.location ?? "", repository.origin);
  target.searchParams.set("digest", digest);
  const body = Buffer.from(content);
  const headers = { "content-type": "application/octet-stream", "content-length": String(body.length) };
  discard(await repository.send({ method: "PUT", path: target, headers, body: () => body }, [201]));
  return digest;
}

/** Attaches statements with their signatures as `cosign sign --key` does. */
async function attach(
  repository: Repository,
  subject: string,
  statements: { payload: string; signature: string }[],
): Promise<void> {
  const config = {
    mediaType: "application/vnd.oci.image.config.v1+json",
    digest: await pushBlob(repository, "{}"),
    size: 2,
  };
  const layers = [];
  for (const { payload, signature } of statements)
    layers.push({
      mediaType: "application/vnd.dev.cosign.simplesigning.v1+json",
      digest: await pushBlob(repository, payload),
      size: payload.length,
      annotations: { "dev.cosignproject.cosign/signature": signature },
    });
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const body = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, config, layers }));
  const headers = { "content-type": mediaType, "content-length": String(body.length) };
  const path = `manifests/${subject.replace(":", "-")}.sig`;
  discard(await repository.send({ method: "PUT", path, headers, body: () => body }, [201]));
}

const signed = (payload: string, key: KeyObject, hash: string | null = "sha256") => ({
  payload,
  signature: sign(hash, Buffer.from(payload), key).toString("base64"),
});

test.each([
  ["ECDSA P-256, as cosign makes them", ecdsa(), "sha256"],
  ["RSA", generateKeyPairSync("rsa", { modulusLength: 2048 }), "sha256"],
  ["Ed25519", generateKeyPairSync("ed25519"), null],
])("an image that the key's owner signed is fetched: %s", async (_, { publicKey, privateKey }, hash) => {
  const { reference, digest, repository } = await image(`signed-${publicKey.asymmetricKeyType}`);
  const others = signed(statement(digest), ecdsa().privateKey);
  await attach(repository, digest, [others, signed(statement(digest), privateKey, hash)]);
  const pem = publicKey.export({ type: "spki", format: "pem" }).toString();
  const signer = publisherKey(pem, "cosign.pub");
  expect(await fetchImage(reference, { directory, signer }, quiet)).toHaveLength(1);
});

test("nothing is downloaded without a signature of this key for this digest", async () => {
  const { publicKey: signer, privateKey } = ecdsa();
  const { reference, digest, repository } = await image("refused");
  const before = registry.requests.length;
  const attempt = () => fetchImage(reference, { directory, signer }, quiet);
  const refused = `@${digest} is not signed with the key ${fingerprint(signer)}: `;
  await expect(attempt()).rejects.toThrow(`${refused}the repository has no signatures of it`);
  const good = signed(statement(digest), privateKey);
  for (const statements of [
    [signed(statement(digest), ecdsa().privateKey)], // another key
    [signed(statement(`sha256:${sha256("another image")}`), privateKey)], // a signature taken from another image
    [{ payload: `${good.payload} `, signature: good.signature }], // a changed statement
    [{ ...good, signature: "AAAA" }],
    [signed(JSON.stringify({ critical: { image: { "docker-manifest-digest": digest }, type: "other" } }), privateKey)],
  ]) {
    await attach(repository, digest, statements);
    await expect(attempt()).rejects.toThrow(`${refused}none of its 1 signatures is of this key and names this digest`);
  }
  expect(registry.requests.slice(before).filter((one) => one.includes(`/manifests/${digest} `))).toEqual([]);
  await attach(repository, digest, [good]);
  expect(await attempt()).toHaveLength(1);
});

test("a file that is no public key is named; a private key is not taken for one", () => {
  const pem = ecdsa().privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  for (const text of ["hello", pem])
    expect(() => publisherKey(text, "key.pem")).toThrow(/^key\.pem is no public key in PEM/);
});

test("where no signature was checked, lock says so, and how to check the publisher's", () => {
  const manifest = (source: unknown) => ({ source }) as Parameters<typeof vouched>[0];
  const url =
    "https://github.com/kata-containers/kata-containers/releases/download/4.0.0/kata-static-4.0.0-amd64.tar.zst";
  expect(vouched(manifest({ kind: "kata-release", reference: `${url}#sha256=${"0".repeat(64)}` }))).toEqual([
    expect.stringMatching(/^Signature: not checked; each archive has the SHA-256/),
    `  curl -fLO '${url}' && gh attestation verify 'kata-static-4.0.0-amd64.tar.zst' --repo kata-containers/kata-containers`,
  ]);
  expect(vouched(manifest({ kind: "kata-release", reference: "https://x/'; rm -rf ~ #sha256=0" }))).toHaveLength(1);
  expect(vouched(manifest({ kind: "oci-image", reference: "r/x@sha256:0" }))[0]).toMatch(/not checked.*--cosign-key/);
  const signature = `cosign key sha256:${"a".repeat(64)}`;
  expect(vouched(manifest({ kind: "oci-image", reference: "r/x@sha256:0", signature }))).toEqual([
    `Signature: checked when it was locked (${signature})`,
  ]);
});
