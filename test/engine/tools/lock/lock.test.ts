import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { toHex } from "../../../../measure/bytes.ts";
import { kataVerityTable } from "../../../../measure/kata-kernel-command-line.ts";
import { readFirmware } from "../../../../measure/ovmf.ts";
import { deriveRuntime, measuredRuntime } from "../../../../measure/runtime.ts";
import { firmwareLaunch } from "../../../../measure/snp.ts";
import { packageRoot } from "../../../../tools/files/project.ts";
import { pushImage } from "../../../../tools/image/push.ts";
import { imageLayers } from "../../../../tools/lock/image-layers.ts";
import { buildSimpleImage, entriesOfTree } from "../../../../tools/oci/one-layer.ts";
import { check } from "../../../../tools/process/run.ts";
import { startRegistry } from "../oci/registry.ts";
import { lock, main } from "./lock-words.ts";
import { digestOf, type ReleaseFixture, releaseFixture, serveFile } from "./release-fixture.ts";

const quiet = () => {};
let fixture: ReleaseFixture;
let server: Awaited<ReturnType<typeof serveFile>>;
let directory: string;

beforeAll(async () => {
  fixture = await releaseFixture();
});
afterAll(() => rm(dirname(fixture.archive), { recursive: true }));
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "lock-test-"));
  // Downloads of one test are not there in the next.
  const cache = process.env.XDG_CACHE_HOME;
  vi.stubEnv("XDG_CACHE_HOME", directory);
  vi.stubEnv("OUTER_CACHE", cache ?? "");
  server = await serveFile(fixture.archive);
});
afterEach(async () => {
  server.stop();
  vi.unstubAllEnvs();
  await rm(directory, { recursive: true });
});

/** Where the test's payload and manifest go. */
const here = (payloads = join(directory, "payloads")) => [
  ...["--payloads", payloads, "--output", join(directory, "committed.json"), "--name", "fixture"],
];
/** There is no such Kata; by its number it is older than 4.1.0, and so has a known hole. */
const subject = ["--platform", "metal-qemu-snp", "--kata-version", "3.99.0", "--acknowledge", "CVE-2026-77176"];
const release = (...more: string[]) => [...releaseAt(here()), ...more];
const releaseAt = (places: string[]) => [
  ...["kata-release", ...subject, "--mirror", server.mirror],
  ...["--sha256", fixture.sha256, "--rootfs-type", "erofs", ...places],
];
const payloadFile = (path: string) => join(directory, "payloads", "fixture", "files", path);

test("a Kata release becomes a payload whose manifest derives a runtime", async () => {
  const { manifest } = await lock(release(), quiet);
  expect(manifest.files.map(({ role, path, mode }) => `${role} ${path} ${mode}`)).toEqual([
    "shim bin/containerd-shim-contrast-cc-v2 0755",
    "kata-runtime bin/kata-runtime 0755",
    "vmm bin/qemu-system-x86_64 0755",
    "firmware share/OVMF.fd 0644",
    "rootfs share/kata-containers.img 0644",
    "kernel share/kata-kernel 0644",
    "vmm-data share/kata-qemu/qemu/efi-virtio.rom 0644",
    "vmm-data share/kata-qemu/qemu/kvmvapic.bin 0644",
    "vmm-data share/kata-qemu/qemu/linuxboot_dma.bin 0644",
  ]);
  for (const { path, sha256 } of manifest.files) expect(await digestOf(payloadFile(path)), path).toBe(sha256);
  expect(await readFile(payloadFile("bin/qemu-system-x86_64"), "utf8")).toBe("plain QEMU");
  expect(manifest.guest).toEqual({
    rootfsType: "erofs",
    kernelParams: "cgroup_no_v1=all",
    kernelVerityParams: fixture.verityParams,
  });
  expect(manifest.measurement).toHaveProperty("rootfs.verity.rootHash");
  const firmware = await readFile(payloadFile("share/OVMF.fd"));
  const { firmwareDigest } = firmwareLaunch(firmware, readFirmware(firmware));
  expect(manifest.measurement?.snp?.firmwareDigest).toBe(toHex(firmwareDigest));
  expect(manifest.source.reference).toBe(`${server.mirror}/kata-static-3.99.0-amd64.tar.zst#sha256=${fixture.sha256}`);
  expect(JSON.parse(await readFile(join(directory, "committed.json"), "utf8"))).toEqual(manifest);
  expect(deriveRuntime({ platform: "metal-qemu-snp", manifest }).handler).toMatch(
    /^contrast-cc-metal-qemu-snp-[0-9a-f]{8}$/,
  );
});

test("runtime-rs is another flavour of the same archive, taken without a second download", async () => {
  const go = await lock(release(), quiet);
  const downloads = server.requests.length;
  expect((await lock(release(), quiet)).manifest).toEqual(go.manifest);
  const said: string[] = [];
  const rs = await lock(
    release("--flavour", "kata-rs").map((word) => (word === "3.99.0" ? "4.0.0" : word)),
    (line) => said.push(line),
  );
  expect(server.requests).toHaveLength(downloads);
  expect(rs.before).toEqual(go.manifest);
  expect(await readFile(payloadFile("bin/containerd-shim-contrast-cc-v2"), "utf8")).toBe("Rust shim");
  expect(rs.manifest.files.map(({ role }) => role)).not.toContain("kata-runtime");
  // Its guest is composed of a base image and an extension, each bound to the launch by its own root hash.
  const { verityParams } = fixture;
  const extension = "share/kata-containers-coco-extension.img";
  expect(rs.manifest.guest?.extensions).toEqual([{ name: "coco", path: extension, verityParams }]);
  expect(rs.manifest.files.find(({ path }) => path === extension)?.role).toBe("rootfs-extension");
  expect(rs.manifest.measurement?.extensions).toMatchObject([
    { name: "coco", verity: { rootHash: rs.manifest.measurement?.rootfs?.verity?.rootHash } },
  ]);
  const { inputs } = measuredRuntime({ platform: "metal-qemu-snp", manifest: rs.manifest });
  expect(inputs?.commandLine).toMatch(
    new RegExp(` cgroup_no_v1=all selinux=0 kata\\.extension\\.coco\\.verity_params=${verityParams} console=hvc0$`),
  );
  expect(said).toContainEqual(
    expect.stringMatching(/^Kernel parameters of .* that are not taken: agent\.log=debug\.$/),
  );
  // Another file in the extension's place is not what was measured.
  const damaged = structuredClone(rs.manifest);
  for (const file of damaged.files) if (file.path === extension) file.sha256 = "0".repeat(64);
  expect(() => measuredRuntime({ platform: "metal-qemu-snp", manifest: damaged })).toThrow(
    `The extension coco (${extension}) has the SHA-256 ${"0".repeat(64)}, but the measurement's inputs were collected from`,
  );
});

test("a download that breaks off twice is continued; the payload is the same", async () => {
  server.cut.push(3_000_000, 3_000_000);
  const { manifest } = await lock(release(), quiet);
  expect(manifest.source.reference).toContain(fixture.sha256);
  expect(server.requests).toHaveLength(3);
  expect(server.requests[2]).toMatch(/bytes=[1-9]\d+-$/);
});

test("a wrong digest: a clear message, and nothing is left", async () => {
  const wrong = "ab".repeat(32);
  const words = release().map((word) => (word === fixture.sha256 ? wrong : word));
  await expect(lock(words, quiet)).rejects.toThrow(
    new RegExp(`has the SHA-256 ${fixture.sha256}, but ${wrong} was expected`),
  );
  expect(await readdir(directory)).toEqual(["contrast-runtime"]);
  expect(await readdir(join(directory, "contrast-runtime", "downloads"))).toEqual([]);
});

test("killed at any moment, the old payload stays whole and the next run ends the work", async () => {
  const first = await lock(release(), quiet);
  const words = release("--kernel-params", "quiet");
  const staged = join(directory, "payloads", ".fixture.new", "files", "share", "kata-containers.img");
  const moments = [
    (child: ChildProcess) => said(child, /Taking/),
    () => vi.waitUntil(() => existsSync(staged), { timeout: 60_000 }),
  ];
  for (const moment of moments) {
    const child = lockProcess(words);
    await moment(child);
    child.kill("SIGKILL");
    await once(child, "close");
    const kept = JSON.parse(await readFile(join(directory, "payloads", "fixture", "manifest.json"), "utf8"));
    expect(kept).toEqual(first.manifest);
  }
  const next = await lock(words, quiet);
  expect(next.manifest.guest?.kernelParams).toBe("quiet");
  expect((await readdir(join(directory, "payloads"))).sort()).toEqual(["fixture"]);
});

test("killed in the middle of a download, the next run continues it", async () => {
  // The connection neither ends nor goes on after two megabytes.
  server.cut.push(2_000_000);
  const child = lockProcess(release());
  await vi.waitUntil(async () => (await partSize()) > 1_000_000, { timeout: 60_000 });
  child.kill("SIGKILL");
  await once(child, "close");
  await lock(release(), quiet);
  expect(server.requests.at(-1)).toMatch(/bytes=[1-9]\d+-$/);
});

test("a rootfs image that does not belong to its hash tree is refused", async () => {
  const otherParams = fixture.verityParams.replace(/salt=../, "salt=00");
  await expect(lock(release("--kernel-verity-params", otherParams), quiet)).rejects.toThrow(
    /dm-verity tree does not belong to its data/,
  );
  expect(await readdir(join(directory, "payloads"))).toEqual([]);
});

test("what the release does not hold is listed, with where it was looked for", async () => {
  const words = release().map((word) => (word === "metal-qemu-snp" ? "metal-qemu-tdx" : word));
  await expect(lock(words, quiet)).rejects.toThrow(
    /does not hold .*firmware \(opt\/kata\/share\/ovmf\/OVMF.inteltdx.fd\)/,
  );
});

test("an image by digest, from a real registry", async () => {
  const registry = await withRealCache(() => startRegistry("open"));
  try {
    const files = (await lock(release(), quiet)).directory;
    const entries = await entriesOfTree(join(files, "files"), "opt/edgeless/contrast-cc-metal-qemu-snp-01234567");
    const layoutDir = join(directory, "image");
    await buildSimpleImage({ layoutDir, entries, entrypoint: ["/bin/node-installer"] }, quiet);
    const reference = await pushImage(
      { layoutDir, registry: registry.url, repository: "contrast/node-installer" },
      quiet,
    );
    const layers = async (image: string) => (await imageLayers(image, { directory }, quiet)).layers;
    expect(await layers(`http://${reference}`)).toEqual(await layers(layoutDir));
    const words = ["oci-image", ...subject, "--image", `http://${reference}`, ...here()];
    // Contrast's command line holds the root hash; here the user says it.
    await expect(lock(words, quiet)).rejects.toThrow(/The root hash of the guest image is not known/);
    const { manifest } = await lock([...words, "--kernel-verity-params", fixture.verityParams], quiet);
    expect(manifest).toMatchObject({
      flavour: "contrast-go",
      source: { kind: "oci-image", reference: `http://${reference}` },
    });
    expect(manifest.files.map(({ path }) => path)).toContain("share/kata-containers.img");
    await expect(
      lock(
        words.map((word) => word.replace(/@sha256:.*/, ":latest")),
        quiet,
      ),
    ).rejects.toThrow(/must be registry\/repository@sha256/);

    // Contrast's own installer image: files as they are on a node, and what its installer reads beside them.
    // Its root hash is in a verity table here: the fixture's hash tree has no superblock, which roothash= would need.
    const kernelParams = `init=/nix/store/x/init ${kataVerityTable(fixture.verityParams)} console=hvc0`;
    const place = "opt/edgeless/@@runtimeName@@";
    const installed = { url: "file:///opt/edgeless/share/kata-kernel", path: `/${place}/share/kata-kernel` };
    const contrast = join(directory, "contrast");
    await buildSimpleImage(
      {
        layoutDir: contrast,
        entries: [
          ...(await entriesOfTree(join(files, "files"), "opt/edgeless")),
          {
            path: "config/contrast-node-install.json",
            type: "file",
            content: JSON.stringify({ files: [installed], debugRuntime: false, qemuExtraKernelParams: kernelParams }),
            mode: 0o644,
          },
        ],
        entrypoint: ["/bin/node-installer"],
      },
      quiet,
    );
    const image = await pushImage({ layoutDir: contrast, registry: registry.url, repository: "contrast/real" }, quiet);
    const own = await lock(["oci-image", ...subject, "--image", `http://${image}`, ...here()], quiet);
    expect(own.manifest.guest).toEqual({ rootfsType: "erofs", kernelParams, kernelVerityParams: "" });
    expect(own.manifest.files).toEqual(manifest.files);
  } finally {
    await registry.stop();
  }
});

test("files of this machine and of a node give the same payload", async () => {
  const payload = (await lock(release(), quiet)).directory;
  const root = join(directory, "node-root");
  const runtime = join(root, "opt/edgeless/contrast-cc-metal-qemu-snp-01234567");
  await cp(join(payload, "files"), runtime, { recursive: true });
  await mkdir(join(runtime, "etc"));
  await writeFile(
    join(runtime, "etc/configuration-qemu-snp.toml"),
    `[hypervisor.qemu]\nrootfs_type = "erofs"\nkernel_params = "init=/init"\nkernel_verity_params = "${fixture.verityParams}"\n`,
  );
  const common = [...subject, ...here()];
  const files = await lock(["files", ...common, "--from", runtime], quiet);
  expect(files.manifest.guest).toEqual({
    rootfsType: "erofs",
    kernelParams: "init=/init",
    kernelVerityParams: fixture.verityParams,
  });
  const via = `env -C ${root} sh ${await remoteShell(root)}`;
  const node = await lock(
    ["from-node", ...common, "--via", via, "--root", "/opt/edgeless/contrast-cc-metal-qemu-snp-01234567"],
    quiet,
  );
  expect(node.manifest.files).toEqual(files.manifest.files);
  expect(node.manifest.source).toEqual({
    kind: "node",
    reference: `${via}:/opt/edgeless/contrast-cc-metal-qemu-snp-01234567`,
  });
  await expect(lock(["from-node", ...common, "--via", via, "--root", "/opt/nothing"], quiet)).rejects.toThrow(
    /could not be read: .*tar.*nothing/,
  );
  await expect(
    lock(["from-node", ...common, "--via", "no-such-program-here", "--root", "/opt"], quiet),
  ).rejects.toThrow(/no-such-program-here cannot be started/);
});

test("somebody else fetches what a committed manifest describes", async () => {
  const { manifest } = await lock(release(), quiet);
  const elsewhere = join(directory, "elsewhere");
  const committed = join(directory, "committed.json");
  const fetched = await lock(["fetch", "--manifest", committed, "--payloads", elsewhere], quiet);
  expect(fetched.manifest).toEqual(manifest);
  for (const { path, sha256 } of manifest.files)
    expect(await digestOf(join(elsewhere, "fixture", "files", path)), path).toBe(sha256);
  expect(JSON.parse(await readFile(join(elsewhere, "fixture", "manifest.json"), "utf8"))).toEqual(manifest);

  // From another mirror than it was locked from, which is gone.
  const [, asset = ""] = /([^/]+)#sha256=/.exec(manifest.source.reference) ?? [];
  const gone = { ...manifest.source, reference: `http://127.0.0.1:1/${asset}#sha256=${fixture.sha256}` };
  await writeFile(join(directory, "gone.json"), JSON.stringify({ ...manifest, source: gone }));
  const again = ["--manifest", join(directory, "gone.json"), "--payloads", join(directory, "again")];
  vi.stubEnv("XDG_CACHE_HOME", join(directory, "empty"));
  await expect(lock(["fetch", ...again], quiet)).rejects.toThrow(/127\.0\.0\.1:1\/.* cannot be downloaded/);
  expect((await lock(["fetch", ...again, "--mirror", server.mirror], quiet)).manifest.files).toEqual(manifest.files);

  const other = { ...manifest, files: manifest.files.map((file) => ({ ...file, sha256: "00".repeat(32) })) };
  const file = join(directory, "other.json");
  await writeFile(file, JSON.stringify(other));
  await expect(lock(["fetch", "--manifest", file, "--payloads", elsewhere], quiet)).rejects.toThrow(
    /holds no file with the digest of bin\/containerd-shim-contrast-cc-v2/,
  );
  const local = join(directory, "local.json");
  await writeFile(local, JSON.stringify({ ...manifest, source: { kind: "files", reference: "somewhere" } }));
  await expect(lock(["fetch", "--manifest", local], quiet)).rejects.toThrow(/cannot be fetched from here/);
});

test("a full disk is said as such, while downloading and while unpacking, and nothing half done stays", async () => {
  const small = join(directory, "small");
  await mkdir(small);
  await check("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", small]);
  try {
    vi.stubEnv("XDG_CACHE_HOME", small);
    await expect(lock(release(), quiet)).rejects.toThrow(
      /needs \d+ MB more at .*where 2 MB are free. Make room there, or set XDG_CACHE_HOME/,
    );
    vi.stubEnv("XDG_CACHE_HOME", directory);
    await expect(lock(releaseAt(here(small)), quiet)).rejects.toThrow(/The disk is full at .*small.*Make room there/);
    expect(await readdir(small)).toEqual(["contrast-runtime"]);
  } finally {
    await check("umount", [small]);
  }
});

test("mistakes on the command line are named, and nothing is fetched", async () => {
  const errors: string[] = [];
  vi.spyOn(console, "error").mockImplementation((line) => void errors.push(line));
  const mistake = async (...words: string[]) => {
    expect(await main(words, quiet)).toBe(2);
    return errors.splice(0).join("\n");
  };
  expect(await mistake("kata")).toMatch(/Unknown command 'kata'/);
  expect(await mistake("files", "--platform", "snp")).toMatch(
    /'--platform <name>' argument 'snp' is invalid\. Allowed choices are aks-clh-snp, /,
  );
  expect(await mistake("files", "--platform", "metal-qemu-snp")).toMatch(/'--kata-version <version>' not specified/);
  expect(await mistake(...release(), "--via", "ssh x")).toMatch(/Unknown option '--via'/);
  const platform = ["--platform", "aks-clh-snp", "--kata-version", "3.2.0"];
  const aks = ["files", ...platform, "--from", "/", "--command-line", "quiet"];
  expect(await mistake(...aks)).toMatch(/--command-line is not for aks-clh-snp: its IGVM file holds the command line/);
  expect(await mistake(...release(), "--rtmr0", `2=${"a".repeat(96)}`)).toMatch(
    /--rtmr0 is of TDX, which metal-qemu-snp does not have/,
  );
  expect(await mistake(...release(), "--file", "kernel")).toMatch(/must be ROLE=PATH/);
  expect(await mistake(...release(), "--nonsense")).toMatch(/Unknown option '--nonsense'/);
  expect(server.requests).toEqual([]);
});

/** Stands for the shell of a node whose root is another directory: "tar -C / …" reads there. */
async function remoteShell(root: string): Promise<string> {
  const script = join(root, "..", "remote-shell");
  await writeFile(script, `[ "$1" = tar ] && shift\nshift 2\nexec tar -C ${root} "$@"\n`);
  return script;
}

async function withRealCache<T>(action: () => Promise<T>): Promise<T> {
  const own = process.env.XDG_CACHE_HOME;
  vi.stubEnv("XDG_CACHE_HOME", process.env.OUTER_CACHE);
  try {
    return await action();
  } finally {
    vi.stubEnv("XDG_CACHE_HOME", own);
  }
}

function lockProcess(words: string[]): ChildProcess {
  return spawn(process.execPath, [join(packageRoot, "tools/cli/main.ts"), "lock", ...words], {
    stdio: ["ignore", "ignore", "pipe"],
  });
}

function said(child: ChildProcess, pattern: RegExp): Promise<void> {
  return new Promise((resolve, reject) => {
    let text = "";
    child.stderr?.on("data", (chunk) => {
      text += chunk;
      if (pattern.test(text)) resolve();
    });
    child.on("close", () => reject(new Error(`ended before it said ${pattern}: ${text}`)));
  });
}

async function partSize(): Promise<number> {
  const downloads = join(directory, "contrast-runtime", "downloads");
  return (await stat(join(downloads, `sha256-${fixture.sha256}.part`)).catch(() => undefined))?.size ?? 0;
}
