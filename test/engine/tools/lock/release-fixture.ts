import { createHash } from "node:crypto";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { mkdtemp, readFile, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import { ensureLocalPayload } from "../../../../tools/local-payload/local-payload.ts";
import { completeEntries } from "../../../../tools/oci/layer.ts";
import { type Entry, tar } from "../../../../tools/oci/tar.ts";
import { vector } from "../../../unit/measure/vectors.ts";

/**
 * A fixture in the layout of a Kata release: paths, links and names as in the real archive, kernel, firmware and rootfs
 * image (with its verity tree) real ones from Debian, the firmware with the end of an AmdSev build; programs a few bytes each.
 */
export interface ReleaseFixture {
  entries: Entry[];
  verityParams: string;
  archive: string;
  sha256: string;
}

const asset = "kata-static-3.99.0-amd64.tar.zst";

export async function releaseFixture(): Promise<ReleaseFixture> {
  const directory = await mkdtemp(join(tmpdir(), "release-fixture-"));
  const { manifest } = await ensureLocalPayload({ directory: join(directory, "local") }, () => {});
  const real = (path: string) => join(directory, "local", "files", path);
  const verityParams = manifest.guest?.kernelVerityParams ?? "";
  const file = (path: string, content: string): Entry => ({
    path: `opt/kata/${path}`,
    type: "file",
    content,
    mode: 0o755,
  });
  const copy = (path: string, source: string): Entry => ({
    path: `opt/kata/${path}`,
    type: "file",
    source,
    mode: 0o644,
  });
  const link = (path: string, target: string): Entry => ({
    path: `opt/kata/${path}`,
    type: "symlink",
    target,
    mode: 0o777,
  });
  const firmware = await readFile(real("share/OVMF.fd"));
  // It has the place for kernel hashes, without which a payload for SEV-SNP is refused.
  const suffix = vector("ovmf_AmdSev_suffix.bin");
  firmware.set(suffix, firmware.length - suffix.length);
  const qemu = "share/kata-qemu/qemu";
  const guest = "share/kata-containers";
  const template = (...more: string[]) =>
    ["[hypervisor.qemu]", 'kernel_params = "cgroup_no_v1=all agent.log=debug"', ...more, ""].join("\n");
  const entries = [
    file("bin/containerd-shim-kata-v2", "Go shim"),
    file("runtime-rs/bin/containerd-shim-kata-v2", "Rust shim"),
    file("bin/kata-runtime", "runtime"),
    file("bin/qemu-system-x86_64", "plain QEMU"),
    file("bin/qemu-system-x86_64-snp-experimental", "SNP QEMU"),
    ...["efi-virtio.rom", "kvmvapic.bin", "linuxboot_dma.bin", "bios-256k.bin"].map((rom) =>
      file(`${qemu}/${rom}`, rom),
    ),
    { path: "opt/kata/share/ovmf/AMDSEV.fd", type: "file", content: firmware, mode: 0o644 } as const,
    copy("share/kata-containers/vmlinuz-6.18.35-190", real("share/kata-kernel")),
    link("share/kata-containers/vmlinuz.container", "vmlinuz-6.18.35-190"),
    copy("share/kata-containers/kata-ubuntu-noble-confidential.image", real("share/kata-containers.img")),
    link("share/kata-containers/kata-containers-confidential.img", "kata-ubuntu-noble-confidential.image"),
    file("share/kata-containers/root_hash_confidential.txt", `${verityParams}\n`),
    file("share/defaults/kata-containers/configuration-qemu-snp.toml", template()),
    // Of runtime-rs: the base image, and an extension that is mounted over it.
    link(`${guest}/kata-containers.img`, "kata-ubuntu-noble-confidential.image"),
    file(`${guest}/root_hash_base.txt`, `${verityParams}\n`),
    copy(`${guest}/kata-containers-coco-extension.img`, real("share/kata-containers.img")),
    file(`${guest}/root_hash_coco-extension.txt`, `${verityParams}\n`),
    file(
      "share/defaults/kata-containers/runtime-rs/configuration-qemu-snp-runtime-rs.toml",
      template("[[hypervisor.qemu.guest_extension_images]]", 'name = "coco"', `verity_params = "${verityParams}"`),
    ),
  ];
  const archive = join(directory, asset);
  const chunks: Buffer[] = [];
  for await (const chunk of tar(completeEntries(entries))) chunks.push(chunk);
  await writeFile(archive, zstdCompressSync(Buffer.concat(chunks)));
  return { entries, verityParams, archive, sha256: await digestOf(archive) };
}

export const digestOf = async (file: string) =>
  createHash("sha256")
    .update(await readFile(file))
    .digest("hex");

/** Serves one file under its name, with ranges; `cut` ends the next answers early, as a broken connection does. */
export async function serveFile(
  file: string,
): Promise<{ mirror: string; cut: number[]; requests: string[]; stop(): void }> {
  const { size } = await stat(file);
  const cut: number[] = [];
  const requests: string[] = [];
  const server = createServer((request, response) => {
    if (basename(request.url ?? "") !== basename(file)) return void response.writeHead(404).end();
    requests.push(`${request.url} ${request.headers.range ?? "whole"}`);
    const start = Number(/\d+/.exec(request.headers.range ?? "0")?.[0]);
    const headers = { etag: '"fixture"', "content-length": size - start };
    if (start > 0) response.writeHead(206, { ...headers, "content-range": `bytes ${start}-${size - 1}/${size}` });
    else response.writeHead(200, headers);
    const bytes = cut.shift();
    if (bytes === undefined) return void createReadStream(file, { start }).pipe(response);
    const part = createReadStream(file, { start, end: start + bytes - 1 });
    part.pipe(response, { end: false });
    part.on("end", () => response.write("", () => request.socket.end()));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    mirror: `http://127.0.0.1:${(server.address() as AddressInfo).port}/3.99.0`,
    cut,
    requests,
    stop: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
