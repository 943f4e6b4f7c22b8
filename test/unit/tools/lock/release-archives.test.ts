import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { measuredRuntime } from "../../../../measure/runtime.ts";
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

const base = rootfs({ fill: 1 });
const coco = rootfs({ fill: 2 });
const gpu = rootfs({ fill: 3 });

/** A release's archive of synthetic parts: `kata-go-static` and `kata-static` as they are from 4.1 on, both before. */
async function archive(name: string, parts: Record<string, string | Buffer>): Promise<string> {
  const all: Record<string, string | Buffer> = {
    ...Object.fromEntries(
      ["", "-snp-experimental"].flatMap((build) => [
        [`bin/qemu-system-x86_64${build}`, `QEMU${build}`],
        ...["efi-virtio.rom", "kvmvapic.bin", "linuxboot_dma.bin"].map((rom) => [
          `share/kata-qemu${build}/qemu/${rom}`,
          rom,
        ]),
      ]),
    ),
    "share/ovmf/AMDSEV.fd": firmware(),
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
  "share/defaults/kata-containers/runtime-rs/configuration-qemu-nvidia-gpu-snp-runtime-rs.toml":
    template("nvrc.smi.srs=1"),
};

async function lockOf(
  flavour: "kata-go" | "kata-rs",
  kataVersion: string,
  parts: Record<string, string | Buffer>,
  platform: "metal-qemu-snp" | "metal-qemu-snp-gpu" = "metal-qemu-snp",
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
  ["3.30.0", { ...goParts }],
  ["4.0.0", { ...goParts, ...rsParts }],
  ["4.1.0", { ...goParts }],
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
    expect(inputs?.commandLine).toMatch(/ agent\.launch_process_timeout=6 cgroup_no_v1=all$/);
  },
);

test.each([
  ["4.0.0", { ...goParts, ...rsParts }],
  ["4.1.0", rsParts],
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
  expect(inputs?.commandLine?.endsWith(` kata.extension.coco.verity_params=${coco.verityParams} console=hvc0`)).toBe(
    true,
  );
  expect(said.join()).not.toContain("newer");
  const other = structuredClone(manifest);
  for (const file of other.files) if (file.path === path) file.sha256 = "0".repeat(64);
  expect(() => measuredRuntime({ platform: "metal-qemu-snp", manifest: other })).toThrow(
    `The extension coco (${path}) has the SHA-256 ${"0".repeat(64)}, but`,
  );
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

test("a release that came later is taken for the newest that is known, and that is said", async () => {
  const { manifest, said } = await lockOf("kata-rs", "4.9.0", rsParts);
  expect(said[0]).toMatch(/^Kata 4\.9\.0 is newer than what is known here, and is treated as 4\.3\.0: /);
  expect(measuredRuntime({ platform: "metal-qemu-snp", manifest }).inputs?.commandLine).toBeUndefined();
});
