import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { measuredRuntime } from "../../../../measure/runtime.ts";
import { isUnread, kataFacts, kataReleases, newestRead, oldestKata } from "../../../../runtime/kata-versions.ts";
import type { PlatformName } from "../../../../runtime/spec.ts";
import { isAtLeast } from "../../../../runtime/version.ts";
import { openArchives } from "../../../../tools/lock/archives.ts";
import { lockPayload } from "../../../../tools/lock/lock.ts";
import { completeEntries } from "../../../../tools/oci/layer.ts";
import { type Entry, tar } from "../../../../tools/oci/tar.ts";
import { firmware, kernel, rootfs } from "../../measure/pod-vm.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "release-archives-"));
});
afterAll(() => rm(directory, { recursive: true }));

/** The newest release that has a row, read or not. */
const newestKata = kataReleases.at(-1)?.version ?? "";
const base = rootfs({ fill: 1 });
const coco = rootfs({ fill: 2 });
const gpu = rootfs({ fill: 3 });

/** A release's archive of synthetic parts: `kata-go-static` and `kata-static` as they are from 4.1 on, both before. */
async function archive(name: string, parts: Record<string, string | Buffer>): Promise<string> {
  const all: Record<string, string | Buffer> = {
    ...Object.fromEntries(
      ["", "-snp-experimental"].flatMap((build) => [
        [`bin/qemu-system-x86_64${build}`, `QEMU${build}`],
        ...["bios-256k.bin", "efi-virtio.rom", "kvmvapic.bin", "linuxboot_dma.bin"].map((rom) => [
          `share/kata-qemu${build}/qemu/${rom}`,
          rom,
        ]),
      ]),
    ),
    "share/ovmf/AMDSEV.fd": firmware(),
    "share/ovmf/OVMF.inteltdx.fd": firmware(),
    "share/kata-containers/vmlinuz.container": kernel(),
    "share/kata-containers/vmlinuz-nvidia-gpu.container": kernel("6.18.1-nvidia-gpu"),
    ...parts,
  };
  const entries = Object.entries(all).map(
    ([path, content]): Entry => ({ path: `opt/kata/${path}`, type: "file", content, mode: 0o755 }),
  );
  const chunks: Buffer[] = [];
  for await (const chunk of tar(completeEntries(entries))) chunks.push(chunk);
  const file = join(directory, name);
  await writeFile(file, zstdCompressSync(Buffer.concat(chunks)));
  return file;
}

const template = (kernelParams: string) =>
  `[hypervisor.qemu]\nrootfs_type = "erofs"\nkernel_params = "${kernelParams}"\nkernel_verity_params = ""\n`;
const guest = (name: string) => `share/kata-containers/${name}`;
const goParts = {
  "bin/containerd-shim-kata-v2": "Go shim",
  [guest("kata-containers-confidential.img")]: base.image,
  [guest("root_hash_confidential.txt")]: `${base.verityParams}\n`,
  "share/defaults/kata-containers/configuration-qemu-snp.toml": template("cgroup_no_v1=all"),
  "share/defaults/kata-containers/configuration-qemu-tdx.toml": template("tdx=of-its-own"),
  "share/defaults/kata-containers/configuration-qemu-coco-dev.toml": template("dev=of-its-own"),
};
const rsParts = {
  "runtime-rs/bin/containerd-shim-kata-v2": "Rust shim",
  [guest("kata-containers.img")]: base.image,
  [guest("root_hash_base.txt")]: `${base.verityParams}\n`,
  [guest("kata-containers-nvidia.img")]: base.image,
  [guest("root_hash_nvidia.txt")]: `${base.verityParams}\n`,
  [guest("kata-containers-coco-extension.img")]: coco.image,
  [guest("root_hash_coco-extension.txt")]: `${coco.verityParams}\n`,
  [guest("kata-containers-nvidia-gpu-extension.img")]: gpu.image,
  [guest("root_hash_nvidia-gpu-extension.txt")]: `${gpu.verityParams}\n`,
  "share/defaults/kata-containers/runtime-rs/configuration-qemu-snp-runtime-rs.toml": template("cgroup_no_v1=all"),
  "share/defaults/kata-containers/runtime-rs/configuration-qemu-tdx-runtime-rs.toml": template("tdx=of-its-own"),
  "share/defaults/kata-containers/runtime-rs/configuration-qemu-coco-dev-runtime-rs.toml": template("dev=of-its-own"),
  "share/defaults/kata-containers/runtime-rs/configuration-qemu-nvidia-gpu-snp-runtime-rs.toml":
    template("nvrc.smi.srs=1"),
};

async function lockOf(
  flavour: "kata-go" | "kata-rs",
  kataVersion: string,
  parts: Record<string, string | Buffer>,
  platform: PlatformName = "metal-qemu-snp",
) {
  const said: string[] = [];
  const progress = (line: string) => void said.push(line);
  const name = `${platform}-${flavour}-${kataVersion}`;
  const tree = await openArchives([await archive(`${name}.tar.zst`, parts)], `Kata ${kataVersion}`, progress);
  const payload = join(directory, name);
  const manifest = await lockPayload(
    {
      name,
      platform,
      flavour,
      kataVersion,
      source: { kind: "kata-release", reference: "test" },
      layout: "kata-release",
      named: [],
      guest: {},
      commandLine: undefined,
      rtmr0: [],
      directory: payload,
      output: join(directory, `${name}.json`),
    },
    tree,
    progress,
  );
  return { manifest, said, payload };
}

test.each([
  ["3.30.0", goParts],
  ["3.32.0", goParts],
  ["4.0.0", { ...goParts, ...rsParts }],
  ["4.1.0", goParts],
  [newestKata, goParts],
])(
  "Kata %s: the Go runtime's whole image, by the plain QEMU, with the release's own parameters",
  async (version, parts) => {
    const { manifest, payload } = await lockOf("kata-go", version, parts);
    expect(await readFile(join(payload, "files/bin/qemu-system-x86_64"), "utf8")).toBe("QEMU");
    expect(manifest.guest).toEqual({
      rootfsType: "erofs",
      kernelParams: "cgroup_no_v1=all",
      kernelVerityParams: base.verityParams,
    });
    const { inputs } = measuredRuntime({ platform: "metal-qemu-snp", manifest });
    if (kataFacts(version).commandLineKnown)
      expect(inputs?.commandLine).toMatch(/ agent\.launch_process_timeout=6 cgroup_no_v1=all$/);
    else expect(inputs?.commandLine).toBeUndefined();
  },
);

test.each([
  ["4.0.0", { ...goParts, ...rsParts }],
  ["4.1.0", rsParts],
  [newestKata, rsParts],
])("Kata %s: runtime-rs' base image and extension, both bound to the launch", async (version, parts) => {
  const { manifest, payload, said } = await lockOf("kata-rs", version, parts);
  expect(await readFile(join(payload, "files/bin/containerd-shim-contrast-cc-v2"), "utf8")).toBe("Rust shim");
  const path = "share/kata-containers-coco-extension.img";
  expect(manifest.guest?.extensions).toEqual([{ name: "coco", path, verityParams: coco.verityParams }]);
  expect(manifest.measurement).toMatchObject({
    rootfs: { verity: { rootHash: base.root } },
    extensions: [{ name: "coco", verity: { rootHash: coco.root } }],
  });
  const { inputs } = measuredRuntime({ platform: "metal-qemu-snp", manifest });
  const end = ` kata.extension.coco.verity_params=${coco.verityParams} console=hvc0`;
  expect(inputs?.commandLine?.endsWith(end)).toBe(kataFacts(version).commandLineKnown ? true : undefined);
  expect(said.join().includes("newer")).toBe(isUnread(version));
  const other = structuredClone(manifest);
  for (const file of other.files) if (file.path === path) file.sha256 = "0".repeat(64);
  expect(() => measuredRuntime({ platform: "metal-qemu-snp", manifest: other })).toThrow(
    `The extension coco (${path}) has the SHA-256 ${"0".repeat(64)}, but`,
  );
});

const others = (["metal-qemu-tdx", "metal-qemu-insecure"] as const).flatMap((platform) =>
  ["3.30.0", "3.32.0", "4.0.0", "4.1.0", newestKata].flatMap((version) =>
    (["kata-go", "kata-rs"] as const).flatMap((flavour) =>
      flavour === "kata-rs" && !isAtLeast(version, oldestKata.rs) ? [] : [[platform, flavour, version] as const],
    ),
  ),
);
test.each(others)("%s, %s %s: firmware, ROMs and parameters of the platform", async (platform, flavour, version) => {
  const { manifest, payload } = await lockOf(flavour, version, flavour === "kata-go" ? goParts : rsParts, platform);
  expect(await readFile(join(payload, "files/bin/qemu-system-x86_64"), "utf8")).toBe("QEMU");
  const roms = manifest.files.flatMap(({ role, path }) => (role === "vmm-data" ? [path.split("/").at(-1)] : []));
  const insecure = platform === "metal-qemu-insecure";
  expect(roms.toSorted()).toEqual([
    ...(insecure ? ["bios-256k.bin"] : []),
    ...["efi-virtio.rom", "kvmvapic.bin", "linuxboot_dma.bin"],
  ]);
  expect(manifest.files.some(({ role }) => role === "firmware")).toBe(!insecure);
  expect(manifest.guest?.kernelParams).toBe(insecure ? "dev=of-its-own" : "tdx=of-its-own");
  expect(measuredRuntime({ platform, manifest }).spec.platform).toBe(platform);
});

test("with a GPU: the experimental QEMU, two extensions, the GPU's parameters", async () => {
  const { manifest, payload } = await lockOf("kata-rs", "4.1.0", rsParts, "metal-qemu-snp-gpu");
  expect(await readFile(join(payload, "files/bin/qemu-system-x86_64"), "utf8")).toBe("QEMU-snp-experimental");
  expect(manifest.guest?.kernelParams).toBe("nvrc.smi.srs=1");
  expect(manifest.guest?.extensions?.map(({ name }) => name)).toEqual(["gpu", "coco"]);
});

test("an extension that is not what its root hash says is refused", async () => {
  const parts = { ...rsParts, [guest("root_hash_coco-extension.txt")]: gpu.verityParams };
  await expect(lockOf("kata-rs", "4.1.0", parts)).rejects.toThrow(
    `has root hash ${coco.root}, but its verityParams say ${gpu.root}`,
  );
});

test.each(["4.2.0", "4.9.0"])(
  "a release that nobody has read is taken for the newest that was, and that is said: %s",
  async (version) => {
    const { manifest, said } = await lockOf("kata-rs", version, rsParts);
    expect(said[0]).toBe(
      `Kata ${version} is newer than ${newestRead}, the newest whose sources were read here, and is treated like it: keys that it does not know any more have no effect, or keep its pods from starting. Its kernel command line is not predicted; give the one that its guests measure with --command-line.`,
    );
    expect(measuredRuntime({ platform: "metal-qemu-snp", manifest }).inputs?.commandLine).toBeUndefined();
  },
);
