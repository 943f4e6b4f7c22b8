import type { FlavourName } from "../../runtime/flavours.ts";
import type { FileRole } from "../../runtime/manifest.ts";
import { platforms, type Tee } from "../../runtime/platforms.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { PlatformName } from "../../runtime/spec.ts";
import type { FileTree } from "./archives.ts";

/** A file that a payload takes from what was fetched: the first of `from` that is there. */
export interface Wanted {
  role: FileRole;
  /** Below the runtime's directory. */
  path: string;
  from: string[];
  optional?: boolean;
}

/** A file of the fetched tree (links resolved) and its place in the payload. */
export interface Chosen {
  role: FileRole;
  path: string;
  source: string;
}

const shimPath = "bin/containerd-shim-contrast-cc-v2";
/** Option ROMs that QEMU loads for the devices that Kata gives a guest. */
const optionRoms = ["efi-virtio.rom", "kvmvapic.bin", "linuxboot_dma.bin"];
/** What QEMU boots where no firmware is named: SeaBIOS. */
const seaBios = "bios-256k.bin";
const romsFor = (tee: Tee) => (tee === "none" ? [seaBios, ...optionRoms] : optionRoms);

const firmware = (from: string): Wanted => ({ role: "firmware", path: "share/OVMF.fd", from: [from] });

/** Where a release archive has what a payload takes of it. */
export interface ReleaseLayout {
  files: Wanted[];
  /** The text with the dm-verity parameters of the guest's image, then those of its extensions. */
  verityParams: string;
  extensions: ExtensionLayout[];
  /** The configuration that the release has for this platform. */
  template: string;
}
interface ExtensionLayout {
  name: string;
  /** In the payload. */
  path: string;
  verityParams: string;
}

/**
 * What a Kata release archive holds for a platform, below opt/kata (tools/packaging/kata-deploy/local-build at the tags 3.30
 * to 4.1, and the paths in the templates of the same tags). QEMU finds its ROMs relative to its own place, so they keep the
 * directory that its build expects. Only the GPU's templates name the experimental builds of QEMU.
 */
export function kataRelease(platform: PlatformName, flavour: FlavourName, tree: FileTree): ReleaseLayout {
  const { tee, gpu, vmm } = platforms[platform];
  if (vmm !== "qemu")
    throw new Refusal(
      "unsupported-pair",
      `Kata's releases hold no payload for ${platform}: they have QEMU, and neither IGVM files nor an SNP build of Cloud Hypervisor.`,
    );
  const kata = (path: string) => `opt/kata/${path}`;
  const guest = (name: string) => kata(`share/kata-containers/${name}`);
  const experimental = gpu && tree.resolve(kata(`bin/qemu-system-x86_64-${tee}-experimental`)) !== undefined;
  const build = experimental ? `-${tee}-experimental` : "";
  const kernels = gpu
    ? ["vmlinuz-nvidia-gpu-confidential.container", "vmlinuz-nvidia-gpu.container"]
    : ["vmlinuz-confidential.container", "vmlinuz.container"];
  const rs = flavour === "kata-rs";
  const { image, rootHash, extensions } = guestImages(rs, gpu);
  const files: Wanted[] = [
    {
      role: "shim",
      path: shimPath,
      from: [kata(rs ? "runtime-rs/bin/containerd-shim-kata-v2" : "bin/containerd-shim-kata-v2")],
    },
    { role: "vmm", path: "bin/qemu-system-x86_64", from: [kata(`bin/qemu-system-x86_64${build}`)] },
    ...romsFor(tee).map((rom): Wanted => {
      const path = `share/kata-qemu${build}/qemu/${rom}`;
      return { role: "vmm-data", path, from: [kata(path)] };
    }),
    ...(tee === "none" ? [] : [firmware(kata(`share/ovmf/${tee === "snp" ? "AMDSEV.fd" : "OVMF.inteltdx.fd"}`))]),
    { role: "kernel", path: "share/kata-kernel", from: kernels.map(guest) },
    { role: "rootfs", path: "share/kata-containers.img", from: [guest(image)] },
    ...extensions.map(({ file }): Wanted => ({ role: "rootfs-extension", path: `share/${file}`, from: [guest(file)] })),
  ];
  if (!rs)
    files.push({ role: "kata-runtime", path: "bin/kata-runtime", from: [kata("bin/kata-runtime")], optional: true });
  const template = `configuration-qemu-${tee === "none" ? "coco-dev" : gpu ? `nvidia-gpu-${tee}` : tee}`;
  return {
    files,
    verityParams: guest(`root_hash_${rootHash}.txt`),
    extensions: extensions.map(({ name, file, rootHash }) => ({
      name,
      path: `share/${file}`,
      verityParams: guest(`root_hash_${rootHash}.txt`),
    })),
    template: kata(`share/defaults/kata-containers/${rs ? `runtime-rs/${template}-runtime-rs` : template}.toml`),
  };
}

/** The images of a confidential guest: one for the Go runtime; a base and what is mounted over it for runtime-rs. */
function guestImages(rs: boolean, gpu: boolean) {
  const whole = (variant: string) => ({
    image: `kata-containers-${variant}.img`,
    rootHash: variant,
    extensions: [],
  });
  if (!rs) return whole(gpu ? "nvidia-gpu-confidential" : "confidential");
  const extension = (name: string, variant: string) => ({
    name,
    file: `kata-containers-${variant}.img`,
    rootHash: variant,
  });
  const coco = extension("coco", "coco-extension");
  return gpu
    ? { ...whole("nvidia"), extensions: [extension("gpu", "nvidia-gpu-extension"), coco] }
    : { image: "kata-containers.img", rootHash: "base", extensions: [coco] };
}

/** What an extension is called, by the name of its file in releases. */
export const extensionName = (path: string): string | undefined =>
  /(?:^|\/)kata-containers-(?:nvidia-)?([A-Za-z0-9_]+)-extension\.img$/.exec(path)?.[1];

/**
 * What a directory laid out like a runtime's own on a node holds (`/opt/edgeless/<handler>/`), in its layouts so far:
 * QEMU, its ROMs and firmware were in a directory per TEE once. They stay where they are found, for QEMU's sake.
 */
export function runtimeDirectoryLayout(
  platform: PlatformName,
  flavour: FlavourName,
  tree: FileTree,
  root: string,
): Wanted[] {
  const { tee, vmm } = platforms[platform];
  const at = (path: string) => `${root}/${path}`.replace(/^\//, "");
  const same = (role: FileRole, ...paths: [string, ...string[]]): Wanted => {
    const path = paths.find((candidate) => tree.resolve(at(candidate))) ?? paths[0];
    return { role, path, from: paths.map(at) };
  };
  const ofTee = (role: FileRole, path: string) => same(role, path, ...(tee === "none" ? [] : [`${tee}/${path}`]));
  const optional = (wanted: Wanted): Wanted => ({ ...wanted, optional: true });
  const shim: Wanted = { role: "shim", path: shimPath, from: [at(shimPath), at("bin/containerd-shim-kata-v2")] };
  const rootfs = same("rootfs", "share/kata-containers.img");
  const runtime = optional(same("kata-runtime", "bin/kata-runtime"));
  if (vmm === "cloud-hypervisor")
    return [
      shim,
      same("vmm", "bin/cloud-hypervisor-snp", "bin/cloud-hypervisor"),
      same("igvm", "share/kata-containers-igvm.img"),
      rootfs,
      same("snapshotter", "bin/tardev-snapshotter"),
      runtime,
    ];
  const extensions = tree.paths.flatMap((path): Wanted[] =>
    path.startsWith(at("share/")) && extensionName(path) !== undefined
      ? [{ role: "rootfs-extension", path: path.slice(at("").length), from: [path] }]
      : [],
  );
  const initrd = optional(same("initrd", "share/kata-initrd.zst", "share/kata-initrd.gz"));
  return [
    shim,
    ofTee("vmm", "bin/qemu-system-x86_64"),
    ...romsFor(tee).map((rom) => {
      const found = ofTee("vmm-data", `share/qemu/${rom}`);
      return rom === seaBios ? found : optional(found);
    }),
    tee === "none" ? optional(ofTee("firmware", "share/OVMF.fd")) : ofTee("firmware", "share/OVMF.fd"),
    same("kernel", "share/kata-kernel"),
    rootfs,
    runtime,
    // Upstream Kata boots an image or an initrd, never both.
    ...(flavour === "contrast-go" ? [initrd] : []),
    ...(flavour === "kata-rs" ? extensions : []),
  ];
}

/** The canonical place of a role's file, for files that are named one by one. */
export const placeOf: Record<FileRole, (name: string) => string> = {
  shim: () => shimPath,
  vmm: (name) => `bin/${name.startsWith("qemu-system-x86_64") ? "qemu-system-x86_64" : name}`,
  igvm: () => "share/kata-containers-igvm.img",
  firmware: () => "share/OVMF.fd",
  kernel: () => "share/kata-kernel",
  initrd: () => "share/kata-initrd.zst",
  rootfs: () => "share/kata-containers.img",
  "rootfs-extension": (name) => `share/${name}`,
  snapshotter: (name) => `bin/${name}`,
  "kata-runtime": () => "bin/kata-runtime",
  "vmm-data": (name) => `share/qemu/${name}`,
};

/** @throws Refusal that lists every file that is not there, with the places looked at */
export function choose(wanted: Wanted[], tree: FileTree): Chosen[] {
  const chosen: Chosen[] = [];
  const missing: string[] = [];
  for (const { role, path, from, optional } of wanted) {
    const source = from.map((candidate) => tree.resolve(candidate)).find((found) => found !== undefined);
    if (source) chosen.push({ role, path, source });
    else if (!optional) missing.push(`${role} (${from.map((place) => `${tree.top ?? ""}${place}`).join(" or ")})`);
  }
  if (missing.length === 0) return chosen;
  throw new Refusal(
    "payload-incomplete",
    `${tree.name} does not hold ${missing.join(", ")}. Choose a release or source that has them, or name the files one by one: --file ROLE=PATH.`,
  );
}
