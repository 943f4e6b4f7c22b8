/** Payloads for kata-agreement.ts: small parts with every header that is read, and guests as they are published. */
import { rawSha256, sourceOf } from "../../measure/bytes.ts";
import { collectExtension, collectInputs } from "../../measure/collect-inputs.ts";
import type { FileRole, GuestImage, Manifest, PayloadFile } from "../../runtime/manifest.ts";
import { firmware, kernel, rootfs } from "../unit/measure/pod-vm.ts";

type Parts = Partial<Record<FileRole, Uint8Array>>;

export interface Payload {
  manifest: Manifest;
  bytes: Parts;
}

const extensionPath = "share/kata-containers-coco-extension.img";

const places: Partial<Record<FileRole, string>> = {
  shim: "bin/containerd-shim-contrast-cc-v2",
  vmm: "bin/qemu-system-x86_64",
  firmware: "share/OVMF.fd",
  kernel: "share/kata-kernel",
  rootfs: "share/kata-containers.img",
  "rootfs-extension": extensionPath,
};

/** One for each way of booting; the first one's is Kata's own, which runtime-rs composes of a base and an extension. */
export function payloadsFor({ flavour, kataVersion }: { flavour: string; kataVersion: string }): Payload[] {
  const made = rootfs();
  const coco = rootfs({ fill: 2 });
  const base = {
    rootfsType: "erofs",
    kernelParams: "cgroup_no_v1=all",
    kernelVerityParams: made.verityParams,
  } as const;
  const parts = {
    shim: Buffer.from("shim"),
    vmm: Buffer.from("vmm"),
    firmware: firmware(),
    kernel: kernel(),
    rootfs: made.image,
  };
  const extension = { name: "coco", path: extensionPath, verityParams: coco.verityParams };
  const own: Payload =
    flavour === "kata-rs"
      ? payload(
          flavour,
          kataVersion,
          { ...base, extensions: [extension] },
          { ...parts, "rootfs-extension": coco.image },
        )
      : payload(flavour, kataVersion, base, parts);
  const bound = { ...base, kernelParams: `init=/init roothash=${made.root}  quiet`, kernelVerityParams: "" };
  return [own, payload(flavour, kataVersion, bound, parts)];
}

function payload(flavour: string, kataVersion: string, guest: GuestImage, bytes: Parts): Payload {
  const source = (role: FileRole) => sourceOf(bytes[role] ?? Buffer.alloc(0));
  const inputs = collectInputs(
    { firmware: source("firmware"), kernel: source("kernel"), rootfs: source("rootfs") },
    { guest },
  );
  const extensions = guest.extensions?.map(({ name, verityParams }) => ({
    name,
    ...collectExtension(source("rootfs-extension"), verityParams),
  }));
  const files = Object.entries(places).flatMap(([role, path]): PayloadFile[] => {
    const content = bytes[role as FileRole];
    const sha256 = content && Buffer.from(rawSha256(content)).toString("hex");
    return sha256 === undefined
      ? []
      : [{ role: role as FileRole, path, mode: "0755", size: content?.length ?? 0, sha256 }];
  });
  return {
    bytes,
    manifest: {
      schemaVersion: 1,
      name: "agreement",
      flavour,
      kataVersion,
      source: { kind: "files", reference: "none" },
      files,
      guest,
      measurement: { ...inputs, ...(extensions && { extensions }) },
    },
  };
}
