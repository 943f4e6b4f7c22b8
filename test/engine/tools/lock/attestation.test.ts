import { createHash, generateKeyPairSync, sign } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { initializeCA, initializeCTLog, initializeTLog } from "@sigstore/mock";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { sha256 } from "../../../../runtime/canonical.ts";
import { manifestSchema } from "../../../../runtime/manifest.ts";
import { attestedBy, checkAttestation } from "../../../../tools/lock/attestation.ts";
import { vouched } from "../../../../tools/lock/summary.ts";

const kata = "https://github.com/kata-containers/kata-containers";
const workflow = `${kata}/.github/workflows/build-kata-static-tarball-amd64.yaml@refs/heads/main`;
const digest = sha256("the archive");
const logUrl = "https://log.test";
const archive = { sha256: digest, version: "4.3.0" };

/** A certificate authority with its log, and a transparency log: what Sigstore is, made here, and its trusted root. */
async function sigstore() {
  const pair = () => generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const ctLog = await initializeCTLog(pair());
  const authority = await initializeCA(pair(), ctLog);
  const log = await initializeTLog(logUrl, pair());
  const bytes = (value: ArrayBufferView) => Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  const logOf = (publicKey: Buffer) => ({
    baseUrl: logUrl,
    hashAlgorithm: "SHA2_256",
    publicKey: {
      rawBytes: publicKey.toString("base64"),
      keyDetails: "PKIX_ECDSA_P256_SHA_256",
      validFor: { start: "2020-01-01T00:00:00Z" },
    },
    logId: { keyId: createHash("sha256").update(publicKey).digest("base64") },
  });
  const root = {
    mediaType: "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
    tlogs: [logOf(log.publicKey)],
    ctlogs: [logOf(ctLog.publicKey)],
    certificateAuthorities: [
      {
        subject: { organization: "sigstore.mock", commonName: "sigstore" },
        uri: "https://fulcio.test",
        certChain: { certificates: [{ rawBytes: bytes(authority.rootCertificate).toString("base64") }] },
        validFor: { start: "2020-01-01T00:00:00Z" },
      },
    ],
    timestampAuthorities: [],
  };
  return { authority, log, root, bytes };
}

let instance: Awaited<ReturnType<typeof sigstore>>;
let directory: string;
let server: Server;
let answer: { status: number; body: string };
let requests: IncomingMessage[];
let said: string[];

beforeAll(async () => {
  instance = await sigstore();
  directory = await mkdtemp(join(tmpdir(), "attestation-"));
  await writeFile(join(directory, "root.json"), JSON.stringify(instance.root));
  server = createServer((request, response) => {
    requests.push(request);
    response.writeHead(answer.status).end(answer.body);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
});
beforeEach(() => {
  answer = { status: 404, body: "{}" };
  requests = [];
  said = [];
  vi.stubEnv("GITHUB_TOKEN", "");
});
afterEach(() => vi.unstubAllEnvs());
afterAll(async () => {
  server.close();
  server.closeAllConnections();
  await rm(directory, { recursive: true });
});

/** What a log answers; the mock's own types are those of a package that it does not bring. */
interface LogEntry {
  body: string;
  integratedTime: number;
  logID: string;
  logIndex: number;
  verification: {
    signedEntryTimestamp: string;
    inclusionProof: { logIndex: number; rootHash: string; treeSize: number; hashes: string[]; checkpoint: string };
  };
}

interface Said {
  workflow?: string;
  issuer?: string;
  /** Whose sources were built. */
  repository?: string;
  ref?: string;
  subject?: string;
  predicateType?: string;
}

/** An attestation as actions/attest-build-provenance makes them. */
async function attestation(given: Said = {}, { authority, log, bytes } = instance) {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const certificate = await authority.issueCertificate({
    publicKey: publicKey.export({ type: "spki", format: "der" }) as Buffer<ArrayBuffer>,
    subjectAltName: given.workflow ?? workflow,
    extensions: [
      { oid: "1.3.6.1.4.1.57264.1.8", value: given.issuer ?? "https://token.actions.githubusercontent.com" },
      { oid: "1.3.6.1.4.1.57264.1.12", value: given.repository ?? kata },
      { oid: "1.3.6.1.4.1.57264.1.14", value: given.ref ?? "refs/heads/main" },
    ],
  });
  const payload = JSON.stringify({
    _type: "https://in-toto.io/Statement/v1",
    subject: [{ name: "kata-static.tar.zst", digest: { sha256: given.subject ?? digest } }],
    predicateType: given.predicateType ?? "https://slsa.dev/provenance/v1",
    predicate: {},
  });
  const payloadType = "application/vnd.in-toto+json";
  const signed = `DSSEv1 ${payloadType.length} ${payloadType} ${payload.length} ${payload}`;
  const signature = sign("sha256", Buffer.from(signed), privateKey).toString("base64");
  const pem = publicKey.export({ type: "spki", format: "pem" }).toString();
  const entries: Record<string, LogEntry> = await log.log({
    apiVersion: "0.0.1",
    kind: "dsse",
    spec: {
      payloadHash: { algorithm: "sha256", value: sha256(payload) },
      signatures: [{ signature, verifier: Buffer.from(pem).toString("base64") }],
    },
  });
  const [logged] = Object.values(entries);
  if (!logged) throw new Error("the log gave no entry");
  const proof = logged.verification.inclusionProof;
  return {
    mediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
    verificationMaterial: {
      certificate: { rawBytes: bytes(certificate).toString("base64") },
      tlogEntries: [
        {
          logIndex: String(logged.logIndex),
          logId: { keyId: Buffer.from(logged.logID, "hex").toString("base64") },
          kindVersion: { kind: "dsse", version: "0.0.1" },
          integratedTime: String(logged.integratedTime),
          inclusionPromise: { signedEntryTimestamp: logged.verification.signedEntryTimestamp },
          inclusionProof: {
            logIndex: String(proof.logIndex),
            rootHash: Buffer.from(proof.rootHash, "hex").toString("base64"),
            treeSize: String(proof.treeSize),
            hashes: proof.hashes,
            checkpoint: { envelope: proof.checkpoint },
          },
          canonicalizedBody: logged.body,
        },
      ],
    },
    dsseEnvelope: { payload: Buffer.from(payload).toString("base64"), payloadType, signatures: [{ sig: signature }] },
  };
}
type Attestation = Awaited<ReturnType<typeof attestation>>;

const origin = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
const roots = () => ({ trustedRoot: join(directory, "root.json") });
const asked = () => checkAttestation({ ...archive, ...roots(), api: origin() }, (line) => void said.push(line));
const listed = (...bundles: unknown[]) => ({
  status: 200,
  body: JSON.stringify({ attestations: bundles.map((bundle) => ({ bundle, repository_id: 1 })) }),
});

test.each([
  ["main", {}],
  ["a stable branch", { workflow: workflow.replace("main", "stable-4.3"), ref: "refs/heads/stable-4.3" }],
  ["the release's tag", { workflow: workflow.replace("heads/main", "tags/4.3.0"), ref: "refs/tags/4.3.0" }],
])("an archive that a workflow of Kata built on %s is its", async (_, given: Said) => {
  expect(await attestedBy([await attestation(given)], [instance.root], archive)).toBe(given.workflow ?? workflow);
});

const elsewhere = "https://github.com/somebody/kata-containers";
test.each<[string, Said, string]>([
  ["of another archive", { subject: sha256("another") }, `a statement about ${sha256("another")}`],
  ["of another kind", { predicateType: "https://spdx.dev/Document" }, "a statement of the kind https://spdx.dev"],
  ["by another repository", { workflow: workflow.replace(kata, elsewhere) }, `signed by ${elsewhere}/`],
  ["by a name that begins alike", { workflow: workflow.replace(kata, `${kata}-2`) }, `signed by ${kata}-2/`],
  ["by a path in another folder", { workflow: workflow.replace("workflows/", "workflows/../x/") }, "signed by "],
  ["by a name with a second ref", { workflow: `${workflow}@refs/heads/x` }, "signed by "],
  ["by Kata's workflow on other sources", { repository: elsewhere }, `for sources of ${elsewhere}@refs/heads/main`],
  ["by a pull request", { workflow: workflow.replace("heads/main", "pull/1/merge") }, "@refs/pull/1/merge"],
  ["by a topic branch", { workflow: workflow.replace("main", "topic") }, "@refs/heads/topic"],
  ["for a topic branch", { ref: "refs/heads/topic" }, `for sources of ${kata}@refs/heads/topic`],
  ["by another release's tag", { workflow: workflow.replace("heads/main", "tags/4.2.0") }, "@refs/tags/4.2.0"],
  ["by another issuer", { issuer: "https://accounts.example.com" }, "a certificate for https://accounts.example.com"],
])("an attestation %s is refused, and what was expected is said", async (_, given, found) => {
  const attempt = attestedBy([await attestation(given)], [instance.root], archive);
  await expect(attempt).rejects.toThrow(
    `provenance (https://slsa.dev/provenance/v1) of this digest, signed by a workflow of ${kata} `,
  );
  await expect(attempt).rejects.toThrow(`Found: `);
  await expect(attempt).rejects.toThrow(found);
});

test.each<[string, (good: Attestation) => void, RegExp]>([
  [
    "a changed statement",
    ({ dsseEnvelope }) => {
      const changed = Buffer.from(dsseEnvelope.payload, "base64").toString().replace("tar.zst", "tar.xz");
      dsseEnvelope.payload = Buffer.from(changed).toString("base64");
    },
    /DSSE payload hash mismatch/,
  ],
  ["another signature", ({ dsseEnvelope }) => (dsseEnvelope.signatures = [{ sig: "AAAA" }]), /signature mismatch/],
  ["no entry in the log", ({ verificationMaterial }) => (verificationMaterial.tlogEntries = []), /timestamps|tlog/],
  [
    "an entry without the log's signature",
    ({ verificationMaterial: { tlogEntries } }) => {
      for (const entry of tlogEntries) entry.inclusionPromise.signedEntryTimestamp = "AAAA";
    },
    /does not hold.*Found: \S/,
  ],
  ["no certificate", ({ verificationMaterial }) => (verificationMaterial.certificate.rawBytes = "AAAA"), /Found: \S/],
])("an attestation with %s is refused", async (_, change, found) => {
  const bundle = await attestation();
  change(bundle);
  await expect(attestedBy([bundle], [instance.root], archive)).rejects.toThrow(found);
});

test("an attestation of another Sigstore is refused; one good one among others is enough", async () => {
  const foreign = await attestation({}, await sigstore());
  await expect(attestedBy([foreign], [instance.root], archive)).rejects.toThrow(/Found: /);
  expect(await attestedBy([foreign, "no bundle", await attestation()], [instance.root], archive)).toBe(workflow);
});

test("GitHub is asked for the provenance of the digest, with the token of the environment", async () => {
  vi.stubEnv("GITHUB_TOKEN", "ghs_secret");
  answer = listed(await attestation());
  expect(await asked()).toBe(workflow);
  expect(requests.map(({ url, headers }) => [url, headers.authorization])).toEqual([
    [
      `/repos/kata-containers/kata-containers/attestations/sha256:${digest}?predicate_type=provenance`,
      "Bearer ghs_secret",
    ],
  ]);
  expect(said).toEqual([]);
});

test("a mirror is asked instead, for what gh attestation download writes, without the token", async () => {
  vi.stubEnv("GITHUB_TOKEN", "ghs_secret");
  const other = await attestation({ predicateType: "https://in-toto.io/attestation/release/v0.1" });
  answer = { status: 200, body: `${JSON.stringify(other)}\n${JSON.stringify(await attestation())}\n` };
  const mirror = `${origin()}/4.3.0/`;
  expect(await checkAttestation({ ...archive, ...roots(), mirror }, () => {})).toBe(workflow);
  expect(requests.map(({ url, headers }) => [url, headers.authorization])).toEqual([
    [`/4.3.0/sha256:${digest}.jsonl`, undefined],
  ]);
});

test("what does not hold is refused, wherever it comes from", async () => {
  const others = await attestation({ workflow: workflow.replace(kata, elsewhere) });
  answer = listed(others);
  await expect(asked()).rejects.toThrow(`signed by ${elsewhere}`);
  answer = listed({ mediaType: "\u001b[31mx" });
  await expect(asked()).rejects.toThrow(/does not hold.*Found: invalid bundle/);
  const file = join(directory, "given.jsonl");
  await writeFile(file, JSON.stringify(others));
  const given = () => checkAttestation({ ...archive, ...roots(), file }, () => {});
  await expect(given()).rejects.toThrow(`signed by ${elsewhere}`);
  await writeFile(file, "hello");
  await expect(given()).rejects.toThrow(`${file} is no JSON`);
  await writeFile(file, JSON.stringify(await attestation()));
  expect(await given()).toBe(workflow);
  await writeFile(join(directory, "other.json"), '{"tlogs": 7}');
  const wrongRoot = checkAttestation({ ...archive, file, trustedRoot: join(directory, "other.json") }, () => {});
  await expect(wrongRoot).rejects.toThrow(/trusted root|does not hold/);
});

test.each<[string, () => { status: number; body: string }, RegExp]>([
  ["has none", () => ({ status: 404, body: "{}" }), /127\.0\.0\.1:\d+ has none \(/],
  ["has an empty list", () => listed(), /has none/],
  ["has none of this kind", () => listed(null), /has none/],
  ["is broken", () => ({ status: 502, body: "" }), /answered 502/],
  ["sends garbage", () => ({ status: 200, body: "<html>" }), /no list of attestations/],
  ["sends something else", () => ({ status: 200, body: '{"attestations": 3}' }), /no list of attestations/],
  ["never ends", () => ({ status: 200, body: " ".repeat(2 << 20) }), /longer than 1048576 bytes/],
])("a server that %s leaves the archive to its digest, and that is said", async (_, given, line) => {
  answer = given();
  expect(await asked()).toBeUndefined();
  expect(said).toEqual([expect.stringMatching(/^No attestation of the archive was checked: /)]);
  expect(said[0]).toMatch(line);
});

test("the manifest records the workflow, and the summary names it", () => {
  const signature = `attested by ${workflow}`;
  const recorded = manifestSchema.shape.source.shape.signature;
  expect(recorded.safeParse(signature).success).toBe(true);
  for (const wrong of [signature.replace(kata, elsewhere), `${signature}\n`, "attested by somebody"])
    expect(recorded.safeParse(wrong).success, wrong).toBe(false);
  const source = { kind: "kata-release", reference: "https://x/y#sha256=0", signature };
  expect(vouched({ source } as Parameters<typeof vouched>[0])).toEqual([
    `Signature: checked when it was locked (${signature})`,
  ]);
});
