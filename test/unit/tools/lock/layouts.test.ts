import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { kataReleases } from "../../../../runtime/kata-versions.ts";
import type { FileTree } from "../../../../tools/lock/archives.ts";
import {
  completeGuest,
  guestOfConfiguration,
  guestOfInstaller,
  guestOfTemplate,
} from "../../../../tools/lock/guest.ts";
import { fetchKataRelease, releaseAsset } from "../../../../tools/lock/kata-release.ts";
import { choose, extensionName, kataRelease, runtimeDirectoryLayout } from "../../../../tools/lock/layouts.ts";
import { recordedDigest } from "../../../../tools/lock/release-record.ts";

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

/** Paths of release archives by version: what tools/packaging/kata-deploy puts together at these tags. */
function releaseTree(version: string, archive: "kata-static" | "kata-go-static"): FileTree {
  const composed = version >= "4";
  const both = version < "4.1" || archive === "kata-static";
  const guest = (...names: string[]) => names.map((name) => `share/kata-containers/${name}`);
  const go = version < "4.1" || archive === "kata-go-static";
  const templates = ["snp", "tdx", "nvidia-gpu-snp", "nvidia-gpu-tdx"].map((name) => `configuration-qemu-${name}`);
  return tree(
    ...[
      "bin/qemu-system-x86_64",
      "bin/qemu-system-x86_64-snp-experimental",
      "bin/qemu-system-x86_64-tdx-experimental",
      "share/ovmf/AMDSEV.fd",
      "share/ovmf/OVMF.inteltdx.fd",
      ...guest("vmlinuz.container", "vmlinuz-nvidia-gpu.container"),
      ...["", "-snp-experimental", "-tdx-experimental"].flatMap((build) => roms(`share/kata-qemu${build}/qemu`)),
      ...(go
        ? [
            "bin/containerd-shim-kata-v2",
            "bin/kata-runtime",
            ...guest("kata-containers-confidential.img", "root_hash_confidential.txt"),
            ...guest("kata-containers-nvidia-gpu-confidential.img", "root_hash_nvidia-gpu-confidential.txt"),
            ...templates.map((name) => `share/defaults/kata-containers/${name}.toml`),
          ]
        : []),
      ...(both ? ["runtime-rs/bin/containerd-shim-kata-v2"] : []),
      ...(both && composed
        ? [
            ...guest("kata-containers.img", "root_hash_base.txt", "kata-containers-nvidia.img", "root_hash_nvidia.txt"),
            ...["coco", "nvidia-gpu"].flatMap((name) =>
              guest(`kata-containers-${name}-extension.img`, `root_hash_${name}-extension.txt`),
            ),
            ...templates.map((name) => `share/defaults/kata-containers/runtime-rs/${name}-runtime-rs.toml`),
          ]
        : []),
    ].map((path) => `opt/kata/${path}`),
  );
}

const metal = ["metal-qemu-snp", "metal-qemu-tdx", "metal-qemu-snp-gpu", "metal-qemu-tdx-gpu"] as const;
const locked = kataReleases.flatMap(({ version }) => [
  { version, flavour: "kata-go" } as const,
  ...(version >= "4" ? [{ version, flavour: "kata-rs" } as const] : []),
]);

test.each(locked)("the archive of $version has all that a payload of $flavour needs", ({ version, flavour }) => {
  const archive = releaseAsset(version, flavour).startsWith("kata-go") ? "kata-go-static" : "kata-static";
  const release = releaseTree(version, archive);
  for (const platform of metal) {
    const gpu = platform.endsWith("-gpu");
    const tee = platform.includes("snp") ? "snp" : "tdx";
    const layout = kataRelease(platform, flavour, release);
    const files = chosen(choose(layout.files, release));
    const build = gpu ? `-${tee}-experimental` : "";
    const share = "opt/kata/share/kata-containers";
    expect(files).toMatchObject({
      // Upstream's own choice: the experimental builds are for GPUs.
      "bin/qemu-system-x86_64": `opt/kata/bin/qemu-system-x86_64${build}`,
      [`share/kata-qemu${build}/qemu/kvmvapic.bin`]: `opt/kata/share/kata-qemu${build}/qemu/kvmvapic.bin`,
      "share/OVMF.fd": `opt/kata/share/ovmf/${tee === "snp" ? "AMDSEV.fd" : "OVMF.inteltdx.fd"}`,
      "share/kata-kernel": `${share}/vmlinuz${gpu ? "-nvidia-gpu" : ""}.container`,
    });
    const image =
      flavour === "kata-rs"
        ? `kata-containers${gpu ? "-nvidia" : ""}.img`
        : `kata-containers${gpu ? "-nvidia-gpu" : ""}-confidential.img`;
    expect(files["share/kata-containers.img"]).toBe(`${share}/${image}`);
    const extensions = flavour === "kata-go" ? [] : gpu ? ["nvidia-gpu", "coco"] : ["coco"];
    expect(layout.extensions).toEqual(
      extensions.map((name) => ({
        name: name.replace("nvidia-", ""),
        path: `share/kata-containers-${name}-extension.img`,
        verityParams: `${share}/root_hash_${name}-extension.txt`,
      })),
    );
    for (const { name, path } of layout.extensions) {
      expect(files[path]).toBe(`opt/kata/share/kata-containers/${path.slice("share/".length)}`);
      expect(extensionName(path)).toBe(name);
    }
    for (const text of [layout.verityParams, layout.template]) expect(release.resolve(text), text).toBe(text);
  }
});

test("a GPU payload takes the plain QEMU of a release that has no other", () => {
  const full = releaseTree("4.1.0", "kata-go-static");
  const release = tree(...full.paths.filter((path) => !path.includes("experimental")));
  const { files } = kataRelease("metal-qemu-tdx-gpu", "kata-go", release);
  expect(chosen(choose(files, release))["bin/qemu-system-x86_64"]).toBe("opt/kata/bin/qemu-system-x86_64");
});

test.each([
  ["kata-go", "bin/containerd-shim-kata-v2", ["kata-containers-confidential.img"], "confidential"],
  [
    "kata-rs",
    "runtime-rs/bin/containerd-shim-kata-v2",
    ["kata-containers.img", "kata-containers-coco-extension.img"],
    "base",
  ],
] as const)("without a TEE, %s takes the release's plain QEMU with its SeaBIOS, and no firmware", (...layout) => {
  const [flavour, shim, [image, ...extensions], rootHash] = layout;
  const release = tree(
    ...[
      ...[shim, "bin/qemu-system-x86_64", "bin/qemu-system-x86_64-snp-experimental", "share/ovmf/AMDSEV.fd"],
      ...["vmlinuz.container", image, ...extensions].map((name) => `share/kata-containers/${name}`),
      ...roms("share/kata-qemu/qemu"),
      "share/kata-qemu/qemu/bios-256k.bin",
    ].map((path) => `opt/kata/${path}`),
  );
  const { files, verityParams } = kataRelease("metal-qemu-insecure", flavour, release);
  expect(chosen(choose(files, release))).toEqual({
    "bin/containerd-shim-contrast-cc-v2": `opt/kata/${shim}`,
    "bin/qemu-system-x86_64": "opt/kata/bin/qemu-system-x86_64",
    "share/kata-kernel": "opt/kata/share/kata-containers/vmlinuz.container",
    "share/kata-containers.img": `opt/kata/share/kata-containers/${image}`,
    ...Object.fromEntries(extensions.map((name) => [`share/${name}`, `opt/kata/share/kata-containers/${name}`])),
    ...Object.fromEntries(
      [...roms("share/kata-qemu/qemu"), "share/kata-qemu/qemu/bios-256k.bin"].map((rom) => [rom, `opt/kata/${rom}`]),
    ),
  });
  expect(verityParams).toBe(`opt/kata/share/kata-containers/root_hash_${rootHash}.txt`);
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

test("without a TEE, a runtime's directory needs SeaBIOS, and takes firmware only where there is one", () => {
  const layout = (...paths: string[]) => {
    const found = contrast("bin/qemu-system-x86_64", ...paths);
    return chosen(choose(runtimeDirectoryLayout("metal-qemu-insecure", "contrast-go", found, "opt/x"), found));
  };
  const bios = "share/qemu/bios-256k.bin";
  expect(layout(bios)).toHaveProperty([bios]);
  expect(layout(bios)).not.toHaveProperty(["share/OVMF.fd"]);
  expect(layout(bios, "share/OVMF.fd")).toHaveProperty(["share/OVMF.fd"], "opt/x/share/OVMF.fd");
  expect(() => layout()).toThrow("does not hold vmm-data (opt/x/share/qemu/bios-256k.bin)");
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
  ["3.32.0", "kata-go", "kata-static-3.32.0-amd64.tar.zst"],
  ["4.0.0", "kata-go", "kata-static-4.0.0-amd64.tar.zst"],
  ["4.1.0", "kata-rs", "kata-static-4.1.0-amd64.tar.zst"],
  ["4.1.0", "kata-go", "kata-go-static-4.1.0-amd64.tar.zst"],
] as const)("the asset of Kata %s for %s", (version, flavour, asset) => {
  expect(releaseAsset(version, flavour)).toBe(asset);
});

describe("a release whose digest is not known here", () => {
  const asset = "kata-go-static-4.3.0-amd64.tar.zst";
  const sha256 = "5".repeat(64);
  const record = { tag_name: "4.3.0", assets: [{ name: asset, digest: `sha256:${sha256}` }] };
  let server: Server;
  let answer: { status: number; body: string };
  let asked: string[];
  beforeEach(async () => {
    answer = { status: 200, body: JSON.stringify(record) };
    asked = [];
    server = createServer((request, response) => {
      asked.push(request.url ?? "");
      const isRecord = /release\.json$|\/tags\//.test(request.url ?? "");
      response.writeHead(isRecord ? answer.status : 404).end(isRecord ? answer.body : "");
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
  });
  afterEach(() => {
    server.close();
    server.closeAllConnections();
  });
  const origin = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const fetchIt = (more: { mirror?: string; sha256?: string }, said: string[] = []) =>
    fetchKataRelease({ version: "4.3.0", flavour: "kata-go", api: `${origin()}/api`, ...more }, (line) =>
      said.push(line),
    );

  test("has the one that GitHub recorded, and it is said that nobody signed that", async () => {
    expect(await recordedDigest({ version: "4.3.0", asset, api: `${origin()}/api` })).toEqual({
      sha256,
      from: `${origin()}/api/repos/kata-containers/kata-containers/releases/tags/4.3.0`,
    });
    const said: string[] = [];
    await expect(fetchIt({ mirror: origin() }, said)).rejects.toThrow(`${origin()}/${asset}`);
    expect(said[0]).toBe(
      `The digest of ${asset} is not known here; ${origin()}/release.json says ${sha256}. Nobody signed that: compare it with somebody else's record before you commit the manifest.`,
    );
    expect(asked).toContain(`/${asset}`);
  });

  test.each([
    ["another release's record", () => ({ ...record, tag_name: "4.2.0" }), "is the record of 4.2.0, not of 4.3.0"],
    ["one without the archive", () => ({ ...record, assets: [] }), `has no asset ${asset}`],
    [
      "one without digests",
      () => ({ ...record, assets: [{ name: asset, digest: null }] }),
      `has no SHA-256 of ${asset}`,
    ],
    ["another kind of digest", () => ({ ...record, assets: [{ name: asset, digest: "md5:00" }] }), "has no SHA-256"],
    ["no record", () => ["nothing"], "is no record of a release"],
  ])("%s is none", async (_, body, problem) => {
    answer.body = JSON.stringify(body());
    await expect(fetchIt({ mirror: origin() })).rejects.toThrow(problem);
    expect(asked).toEqual(["/release.json"]);
  });

  test("a server that does not have it, or is without TLS, gives none: the user does", async () => {
    answer.status = 403;
    await expect(fetchIt({ mirror: origin() })).rejects.toThrow(
      `No digest of ${asset} is known here, and ${origin()}/release.json answered 403. Give the SHA-256 that GitHub shows beside it at`,
    );
    await expect(fetchIt({ mirror: "http://mirror.invalid" })).rejects.toThrow("is without TLS, so it is not asked");
    asked = [];
    await expect(fetchIt({ mirror: origin(), sha256: "6".repeat(64) })).rejects.toThrow(`${origin()}/${asset}`);
    expect(asked).not.toContain("/release.json");
  });

  test("that is not the known one is taken with a word about it", async () => {
    const said: string[] = [];
    const other = {
      version: "4.1.0",
      flavour: "kata-go",
      mirror: "http://127.0.0.1:1",
      sha256: "6".repeat(64),
    } as const;
    await expect(fetchKataRelease(other, (line) => said.push(line))).rejects.toThrow("cannot be downloaded");
    expect(said.join()).toMatch(/^The digest of kata-\S+ is [0-9a-f]{64} in its release; .* yours, 6{64}: /);
  });
});

test("of a release's own configuration the agent's parameters are not taken, and what is empty says nothing", () => {
  const text = `[hypervisor.qemu]
rootfs_type = "erofs"
kernel_params = "cgroup_no_v1=all agent.debug_console x=\\"a  b\\" agent.log=debug nvrc.smi.srs=1"
kernel_verity_params = ""
[[hypervisor.qemu.guest_extension_images]]
name = "coco"
path = "/opt/kata/x.img"
verity_params = "root_hash=1"
[agent.kata]
`;
  expect(guestOfTemplate(text, "file")).toEqual({
    guest: {
      rootfsType: "erofs",
      kernelParams: 'cgroup_no_v1=all x="a  b" nvrc.smi.srs=1',
      kernelVerityParams: undefined,
      extensions: { coco: "root_hash=1" },
    },
    left: ["agent.debug_console", "agent.log=debug"],
  });
});

test("extensions have their parameters and their order from the source, and none is forgotten", () => {
  const base = { kernelVerityParams: "root_hash=base" };
  const files = ["coco", "gpu"].map((name) => ({ name, path: `share/${name}` }));
  const complete = (extensions: Record<string, string>, there = files) =>
    completeGuest("metal-qemu-snp", "kata-rs", "4.1.0", [base, { extensions }], there);
  expect(complete({ gpu: "root_hash=gpu", coco: "root_hash=coco" })?.extensions).toEqual([
    { name: "gpu", path: "share/gpu", verityParams: "root_hash=gpu" },
    { name: "coco", path: "share/coco", verityParams: "root_hash=coco" },
  ]);
  expect(() => complete({ coco: "root_hash=coco" })).toThrow("extension gpu (share/gpu) is not known");
  expect(() => complete({ coco: "", gpu: "root_hash=gpu" })).toThrow("extension coco (share/coco) is not known");
  expect(() => complete({ coco: "a", gpu: "b" }, [])).toThrow("has the extension coco, but its file is not there");
});

test("what is usual of a GPU's image is erofs since 3.31", () => {
  const of = (version: string) =>
    completeGuest("metal-qemu-snp-gpu", "kata-go", version, [{ kernelVerityParams: "root_hash=1" }])?.rootfsType;
  expect([of("3.30.0"), of("3.31.0"), of("4.3.0")]).toEqual(["ext4", "erofs", "erofs"]);
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
  expect(completeGuest("metal-qemu-snp", "contrast-go", "3.31.0", [{ kernelParams: "roothash=bb" }, guest])).toEqual({
    rootfsType: "ext4",
    kernelParams: "roothash=bb",
    kernelVerityParams: "",
  });
  expect(() => completeGuest("metal-qemu-snp", "contrast-go", "3.31.0", [{}])).toThrow(
    /The root hash of the guest image is not known/,
  );
  // Without a TEE, nobody is to rely on it.
  expect(completeGuest("metal-qemu-insecure", "kata-go", "4.1.0", [{}])).toMatchObject({ kernelVerityParams: "" });
  // An IGVM file holds it.
  expect(completeGuest("aks-clh-snp", "contrast-go", "3.2.0.azl2", [{}])).toEqual({
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
