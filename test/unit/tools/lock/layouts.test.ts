import { expect, test } from "vitest";
import type { FileTree } from "../../../../tools/lock/archives.ts";
import { completeGuest, guestOfConfiguration, guestOfInstaller } from "../../../../tools/lock/guest.ts";
import { fetchKataRelease, releaseAsset } from "../../../../tools/lock/kata-release.ts";
import { choose, kataRelease, runtimeDirectoryLayout } from "../../../../tools/lock/layouts.ts";

const tree = (...paths: string[]): FileTree => ({
  name: "the tree",
  paths,
  resolve: (path) => (paths.includes(path) ? path : undefined),
  size: () => 0,
  copy: async () => {},
});

const chosen = (files: ReturnType<typeof choose>) =>
  Object.fromEntries(files.map(({ path, source }) => [path, source]));
const roms = (directory: string) =>
  ["efi-virtio.rom", "kvmvapic.bin", "linuxboot_dma.bin"].map((rom) => `${directory}/${rom}`);

test("a GPU payload for TDX takes the GPU's image and kernel, and the QEMU that the release has", () => {
  const release = tree(
    ...[
      "bin/containerd-shim-kata-v2",
      "bin/qemu-system-x86_64",
      "share/ovmf/OVMF.inteltdx.fd",
      "share/ovmf/AMDSEV.fd",
    ].map((path) => `opt/kata/${path}`),
    ...[
      "vmlinuz.container",
      "vmlinuz-nvidia-gpu.container",
      "kata-containers-confidential.img",
      "kata-containers-nvidia-gpu-confidential.img",
    ].map((path) => `opt/kata/share/kata-containers/${path}`),
    ...roms("opt/kata/share/kata-qemu/qemu"),
  );
  const { files, verityParams } = kataRelease("metal-qemu-tdx-gpu", "kata-go", release);
  expect(chosen(choose(files, release))).toMatchObject({
    "bin/qemu-system-x86_64": "opt/kata/bin/qemu-system-x86_64",
    "share/OVMF.fd": "opt/kata/share/ovmf/OVMF.inteltdx.fd",
    "share/kata-kernel": "opt/kata/share/kata-containers/vmlinuz-nvidia-gpu.container",
    "share/kata-containers.img": "opt/kata/share/kata-containers/kata-containers-nvidia-gpu-confidential.img",
    "share/kata-qemu/qemu/kvmvapic.bin": "opt/kata/share/kata-qemu/qemu/kvmvapic.bin",
  });
  expect(verityParams).toEqual(["opt/kata/share/kata-containers/root_hash_nvidia-gpu-confidential.txt"]);
});

test("Kata's releases have nothing for Cloud Hypervisor with SNP", () => {
  expect(() => kataRelease("aks-clh-snp", "kata-go", tree())).toThrow(/hold no payload for aks-clh-snp/);
});

const contrast = (...paths: string[]) =>
  tree(
    ...["bin/containerd-shim-contrast-cc-v2", "share/kata-kernel", "share/kata-containers.img", ...paths].map(
      (path) => `opt/x/${path}`,
    ),
  );

test("a runtime's directory in its older layout: QEMU, ROMs and firmware of the TEE stay where they are", () => {
  const older = contrast(
    ...["snp", "tdx"].flatMap((tee) => [
      `${tee}/bin/qemu-system-x86_64`,
      `${tee}/share/OVMF.fd`,
      ...roms(`${tee}/share/qemu`),
    ]),
    "share/kata-initrd.zst",
  );
  const files = chosen(choose(runtimeDirectoryLayout("metal-qemu-tdx", "contrast-go", older, "opt/x"), older));
  expect(Object.keys(files).sort()).toEqual([
    "bin/containerd-shim-contrast-cc-v2",
    "share/kata-containers.img",
    "share/kata-initrd.zst",
    "share/kata-kernel",
    "tdx/bin/qemu-system-x86_64",
    "tdx/share/OVMF.fd",
    ...roms("tdx/share/qemu"),
  ]);
});

test("upstream flavours take no initrd from a runtime's directory", () => {
  const newer = contrast("bin/qemu-system-x86_64", "share/OVMF.fd", "share/kata-initrd.zst");
  const files = choose(runtimeDirectoryLayout("metal-qemu-snp", "kata-go", newer, "opt/x"), newer);
  expect(files.map(({ role }) => role)).not.toContain("initrd");
});

test("AKS: IGVM and snapshotter; everything that is missing is said at once", () => {
  const aks = contrast("share/kata-containers-igvm.img", "bin/cloud-hypervisor-snp");
  expect(() => choose(runtimeDirectoryLayout("aks-clh-snp", "contrast-go", aks, "opt/x"), aks)).toThrow(
    "the tree does not hold snapshotter (opt/x/bin/tardev-snapshotter). Choose a release or source that has them",
  );
  const nothing = tree();
  expect(() => choose(runtimeDirectoryLayout("metal-qemu-snp", "kata-go", nothing, "opt/x"), nothing)).toThrow(
    /shim \(.*vmm \(.*firmware \(.*kernel \(.*rootfs \(/,
  );
});

test.each([
  ["3.20.0", "kata-go", "kata-static-3.20.0-amd64.tar.xz"],
  ["3.32.0", "kata-go", "kata-static-3.32.0-amd64.tar.zst"],
  ["4.0.0", "kata-go", "kata-static-4.0.0-amd64.tar.zst"],
  ["4.1.0", "kata-rs", "kata-static-4.1.0-amd64.tar.zst"],
  ["4.1.0", "kata-go", "kata-go-static-4.1.0-amd64.tar.zst"],
] as const)("the asset of Kata %s for %s", (version, flavour, asset) => {
  expect(releaseAsset(version, flavour)).toBe(asset);
});

test("a release without a known digest is not even asked for", async () => {
  const fetchIt = (version: string) =>
    fetchKataRelease({ version, flavour: "kata-go", mirror: "http://127.0.0.1:1" }, () => {});
  await expect(fetchIt("4.3.0")).rejects.toThrow(
    "No digest of kata-go-static-4.3.0-amd64.tar.zst is known here. Give the SHA-256 that GitHub shows beside it at",
  );
  await expect(fetchIt("latest")).rejects.toThrow('"latest" is no Kata release');
});

test("a Kata configuration says how its guest boots, with capitals or without", () => {
  const text = (table: string) =>
    `[${table}.qemu]\nrootfs_type = "erofs"\nkernel_params = "init=/x roothash=00"\nkernel_verity_params = ""\n[runtime]\nenable_debug = false\n`;
  for (const table of ["hypervisor", "Hypervisor"])
    expect(guestOfConfiguration(text(table), "file")).toEqual({
      rootfsType: "erofs",
      kernelParams: "init=/x roothash=00",
      kernelVerityParams: "",
    });
  expect(() => guestOfConfiguration("a = {", "file")).toThrow(/^file is not valid TOML: .* at row 1, col \d+\.$/);
  expect(() => guestOfConfiguration("[runtime]", "file")).toThrow("file has no table [hypervisor.<vmm>].");
});

test("the guest's parameters: the first source wins, and one without a root hash is refused", () => {
  const guest = { rootfsType: "ext4", kernelParams: "roothash=aa" } as const;
  expect(completeGuest("metal-qemu-snp", "contrast-go", [{ kernelParams: "roothash=bb" }, guest])).toEqual({
    rootfsType: "ext4",
    kernelParams: "roothash=bb",
    kernelVerityParams: "",
  });
  expect(() => completeGuest("metal-qemu-snp", "contrast-go", [{}])).toThrow(
    /The root hash of the guest image is not known/,
  );
  // An IGVM file holds it.
  expect(completeGuest("aks-clh-snp", "contrast-go", [{}])).toEqual({
    rootfsType: "ext4",
    kernelParams: "",
    kernelVerityParams: "",
  });
});

test("the configuration of Contrast's installer says how its guests boot, in either spelling; a debug build is refused", () => {
  const read = (document: unknown) => guestOfInstaller(JSON.stringify(document), "config/contrast-node-install.json");
  const kernelParams = "init=/init roothash=00";
  expect(read({ files: [], debugRuntime: false, qemuExtraKernelParams: kernelParams })).toEqual({ kernelParams });
  expect(read({ QemuExtraKernelParams: kernelParams })).toEqual({ kernelParams });
  // An image for AKS: its IGVM file holds the command line.
  expect(read({ files: [] })).toEqual({ kernelParams: undefined });
  expect(() => read({ qemuExtraKernelParams: kernelParams, debugRuntime: true })).toThrow(
    "config/contrast-node-install.json says debugRuntime: guests of this image give everybody on the host a shell.",
  );
  expect(() => read({ qemuExtraKernelParams: ["quiet"] })).toThrow("is not the configuration of Contrast's installer");
  expect(() => guestOfInstaller("{", "x.json")).toThrow("x.json is not JSON");
});
