/** Payloads for kata-agreement.ts: small parts with every header that is read, and guests as they are published. */
import { rawSha256, sourceOf } from "../../measure/bytes.ts";
import { collectInputs } from "../../measure/collect-inputs.ts";
import type { FileRole, GuestImage, Manifest } from "../../runtime/manifest.ts";
import { firmware, kernel, rootfs } from "../unit/measure/pod-vm.ts";

export interface Payload {
  manifest: Manifest;
  bytes: Partial<Record<FileRole, Uint8Array>>;
}

const places: Partial<Record<FileRole, string>> = {
  shim: "bin/containerd-shim-contrast-cc-v2",
  vmm: "bin/qemu-system-x86_64",
  firmware: "share/OVMF.fd",
  kernel: "share/kata-kernel",
  rootfs: "share/kata-containers.img",
};

/** One for each way of booting; the first one's is Kata's own. */
export function payloadsFor({ flavour, kataVersion }: { flavour: string; kataVersion: string }): Payload[] {
  const made = rootfs();
  const guests: GuestImage[] = [
    { rootfsType: "erofs", kernelParams: "cgroup_no_v1=all", kernelVerityParams: made.verityParams },
    { rootfsType: "erofs", kernelParams: `init=/init roothash=${made.root}  quiet`, kernelVerityParams: "" },
  ];
  const bytes = {
    shim: Buffer.from("shim"),
    vmm: Buffer.from("vmm"),
    firmware: firmware(),
    kernel: kernel(),
    rootfs: made.image,
  };
  return guests.map((guest) => ({
    bytes,
    manifest: {
      schemaVersion: 1,
      name: "agreement",
      flavour,
      kataVersion,
      source: { kind: "files", reference: "none" },
      files: Object.entries(bytes).map(([role, content]) => ({
        role: role as FileRole,
        path: places[role as FileRole] ?? role,
        mode: "0755",
        size: content.length,
        sha256: Buffer.from(rawSha256(content)).toString("hex"),
      })),
      guest,
      measurement: collectInputs(
        { firmware: sourceOf(bytes.firmware), kernel: sourceOf(bytes.kernel), rootfs: sourceOf(bytes.rootfs) },
        { guest },
      ),
    },
  }));
}
