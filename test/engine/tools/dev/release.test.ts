import { verify, X509Certificate } from "node:crypto";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bundleFromJSON } from "@sigstore/bundle";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import * as z from "zod";
import { readImageIndex } from "../../../../components/config/image-layout.ts";
import { buildRelease, filesOf, layoutOf } from "../../../../tools/dev/release/build.ts";
import { publishRelease } from "../../../../tools/dev/release/publish.ts";
import { bundleType } from "../../../../tools/dev/release/sign.ts";
import { packageRoot } from "../../../../tools/files/project.ts";
import { readText } from "../../../../tools/http/client.ts";
import { bundledPackagesFile } from "../../../../tools/image/parts.ts";
import { Repository } from "../../../../tools/oci/registry.ts";
import { run } from "../../../../tools/process/run.ts";
import { smallPayload } from "../../../cluster/small-payloads.ts";
import { type Sigstore, startSigstore } from "../../../fakes/sigstore.ts";
import { shownWords } from "../../../shown-commands.ts";
import { type NpmRegistry, startNpmRegistry } from "../../../stand-ins/npm-registry.ts";
import { startRegistry, type TestRegistry } from "../oci/registry.ts";

/* A release, from the sources to two registries: the steps of .github/workflows/release.yml, with all that they talk to here. */

const repository = "https://github.com/example/contrast-runtime";
const builder = `${repository}/.github/workflows/release.yml@refs/tags/v0.1.0`;
const token = "npm-token";
const quiet = () => {};

let directory: string;
let release: string;
let npm: NpmRegistry;
let images: TestRegistry;
let sigstore: Sigstore;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "release-"));
  release = join(directory, "release");
  [npm, images, sigstore] = await Promise.all([startNpmRegistry(token), startRegistry("open"), startSigstore()]);
  const { manifest, directory: payload } = await smallPayload(directory, "small");
  await mkdir(join(directory, "payloads"));
  await cp(payload, join(directory, "payloads", manifest.name), { recursive: true });
  await writeFile(join(directory, "payloads", manifest.name, "manifest.json"), JSON.stringify(manifest));
  await writeFile(join(directory, "npmrc"), `//${new URL(npm.url).host}/:_authToken=${token}\n`);
  vi.stubEnv("NPM_CONFIG_USERCONFIG", join(directory, "npmrc"));
  vi.stubEnv("SOURCE_DATE_EPOCH", "1790000000");
}, 600_000);
afterAll(async () => {
  vi.unstubAllEnvs();
  await Promise.all([npm?.stop(), images?.stop(), sigstore?.stop()]);
  await rm(directory, { recursive: true, force: true });
});

const build = (output: string) => buildRelease({ output, repository, payloads: join(directory, "payloads") }, quiet);

/** Every file of the release by path, with its bytes; not the builder's note of when it read what. */
async function bytesOf(release: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const entry of await readdir(release, { recursive: true, withFileTypes: true }))
    if (entry.isFile() && entry.name !== "image.layers.json") {
      const file = join(entry.parentPath, entry.name);
      found.set(file.slice(release.length), (await readFile(file)).toString("base64"));
    }
  return found;
}

test("what is built twice is the same, to the byte", async () => {
  const digest = await build(release);
  const again = join(directory, "again");
  expect(await build(again)).toBe(digest);
  const [first, second] = [await bytesOf(release), await bytesOf(again)];
  expect([...second.keys()].sort()).toEqual([...first.keys()].sort());
  for (const [name, bytes] of first) expect(second.get(name) === bytes, name).toBe(true);
  expect((await readdir(filesOf(release))).sort()).toEqual([
    "SHA256SUMS",
    "contrast-node-installer.provenance.json",
    "contrast-node-installer.spdx.json",
    "contrast-runtime-0.1.0.tgz",
    "small.json",
  ]);
}, 1_800_000);

test("the checksums are those that sha256sum checks", async () => {
  const words = shownWords("docs/releases.md", "sha256sum --check");
  const { code, stdout } = await run("sha256sum", [...words, "--strict"], { cwd: filesOf(release) });
  expect([code, stdout.split("\n").filter(Boolean).length]).toEqual([0, 4]);
});

test("the package says where its sources are, and has nothing that is only for the clone", async () => {
  const archive = join(filesOf(release), "contrast-runtime-0.1.0.tgz");
  const { stdout } = await run("tar", ["-xzOf", archive, "package/package.json"]);
  const published = JSON.parse(stdout);
  expect(published).toMatchObject({
    repository: { url: `git+${repository}.git` },
    publishConfig: { access: "public" },
  });
  for (const key of ["private", "scripts", "devDependencies"]) expect(published).not.toHaveProperty(key);
  // What its commands read at run time, besides what library.test.ts runs.
  const { stdout: list } = await run("tar", ["-tzf", archive]);
  for (const file of ["dist/node-installer.mjs", "dist/measure.mjs", bundledPackagesFile, "dist/tools/cli/main.js"])
    expect(list.split("\n")).toContain(`package/${file.replace(`${packageRoot}/`, "")}`);
});

test("a tag that is not the version's, and files that were changed, are refused", async () => {
  const output = join(directory, "refused");
  await expect(buildRelease({ output, repository, tag: "v9.9.9" }, quiet)).rejects.toThrow(
    "The tag is v9.9.9, and package.json's version is 0.1.0.",
  );
  const changed = join(directory, "changed");
  await cp(release, changed, { recursive: true });
  await writeFile(join(filesOf(changed), "small.json"), "{}");
  await writeFile(join(filesOf(changed), "more"), "");
  const image = { registry: images.url, repository: "changed" };
  await expect(
    publishRelease({ release: changed, image, npmRegistry: npm.url, signing: undefined }, quiet),
  ).rejects.toThrow("more is in no line, small.json has another digest");
  expect(npm.archives.size).toBe(0);
});

/** Of whom a workflow's token says that he is; nobody checks its signature here. */
const identity = {
  async getToken() {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
    return `${part({ alg: "none" })}.${part({ iss: "https://issuer.test", sub: builder, aud: "sigstore" })}.x`;
  },
};

const published = (name: string) =>
  publishRelease(
    {
      ...{ release, image: { registry: images.url, repository: name }, npmRegistry: npm.url },
      signing: undefined,
    },
    quiet,
  );

test("the package is in the registry as it was built; once more, and nothing is published twice", async () => {
  const reference = await published("team/installer");
  expect(reference).toBe(`${images.host}/team/installer@${(await readImageIndex(layoutOf(release))).digest}`);
  expect(await readFile(join(release, "installer-image.txt"), "utf8")).toBe(`${reference}\n`);
  const archive = await readFile(join(filesOf(release), "contrast-runtime-0.1.0.tgz"));
  expect([...npm.archives.values()].map((bytes) => bytes.equals(archive))).toEqual([true]);
  await published("team/installer");
  expect(npm.requests.filter((request) => request.startsWith("PUT"))).toHaveLength(1);
});

const indexSchema = z.object({
  manifests: z.array(z.object({ digest: z.string(), artifactType: z.string().optional() })),
});

test("the image is signed: its bundle lies beside it, holds, and names image, workflow and payload", async () => {
  const { digest } = await readImageIndex(layoutOf(release));
  const image = { registry: images.url, repository: "signed" };
  const { signImage } = await import("../../../../tools/dev/release/sign.ts");
  await signImage(layoutOf(release), builder, { fulcio: sigstore.fulcio, rekor: sigstore.rekor, identity });
  await published("signed");
  expect((await readImageIndex(layoutOf(release))).digest).toBe(digest);

  const source = new Repository(image);
  const accept = ["index", "manifest"].map((kind) => `application/vnd.oci.image.${kind}.v1+json`).join(", ");
  const read = async (path: string) => readText(await source.send({ method: "GET", path, headers: { accept } }, [200]));
  const index = indexSchema.parse(JSON.parse(await read(`manifests/${digest.replace(":", "-")}`)));
  const signature = index.manifests.find(({ artifactType }) => artifactType === bundleType);
  const { layers } = z
    .object({ layers: z.array(z.object({ digest: z.string() })) })
    .parse(JSON.parse(await read(`manifests/${signature?.digest}`)));
  const bundle = bundleFromJSON(JSON.parse(await read(`blobs/${layers[0]?.digest}`)));
  const envelope = bundle.content.$case === "dsseEnvelope" ? bundle.content.dsseEnvelope : undefined;
  // What the log keeps, its stand-in does not make as the real one does: signature and certificate are looked at.
  const { content, tlogEntries } = bundle.verificationMaterial;
  expect([content.$case, tlogEntries.length]).toEqual(["certificate", 1]);
  const certificate = new X509Certificate(content.$case === "certificate" ? content.certificate.rawBytes : "");
  const [type = "", payload = Buffer.alloc(0)] = [envelope?.payloadType, envelope?.payload];
  const signed = Buffer.concat([Buffer.from(`DSSEv1 ${type.length} ${type} ${payload.length} `), payload]);
  const [{ sig = Buffer.alloc(0) } = {}] = envelope?.signatures ?? [];
  expect(verify("sha256", signed, certificate.publicKey, sig)).toBe(true);
  expect(JSON.parse(envelope?.payload.toString() ?? "")).toMatchObject({
    subject: [{ digest: { sha256: digest.slice("sha256:".length) } }],
    predicate: {
      buildDefinition: { externalParameters: { payloads: ["small"] } },
      runDetails: { builder: { id: builder } },
    },
  });
});
