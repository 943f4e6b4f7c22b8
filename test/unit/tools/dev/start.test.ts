import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { sha256 } from "../../../../runtime/canonical.ts";
import { picture } from "../../../../tools/dev/start/picture.ts";
import { compareKernels } from "../../../../tools/dev/start/proof.ts";
import { ensureVmPayload, requireVirtualMachines } from "../../../../tools/dev/start/virtual-machines.ts";
import { vmDevices } from "../../../../tools/local-cluster/vm-devices.ts";
import { newestRelease } from "../../../../tools/lock/kata-release.ts";
import { MemoryHost } from "../../../fakes/memory-host.ts";
import { each, milan } from "../../node-installer/requirements/hosts.ts";

const host = (...missing: string[]) => {
  const machine = new MemoryHost();
  const files = { ...milan, ...Object.fromEntries(missing.map((path) => [path, undefined])) };
  each(files, { file: (path, content) => machine.put(path, content), link: (path, to) => machine.link(path, to) });
  return machine;
};

describe("npm start with VMs", () => {
  test("a machine that can start VMs may lack a TEE", async () => {
    await requireVirtualMachines(host("/dev/sev", "/sys/module/kvm_amd/parameters/sev_snp"));
  });

  test("each device that is missing is named, and the platform that needs none", async () => {
    await expect(requireVirtualMachines(host("/dev/kvm", "/dev/vhost-net"))).rejects.toThrow(
      /^This machine cannot start VMs\. \/dev\/kvm is missing: .*\/dev\/vhost-net, .*\nWithout --platform, npm start uses the platform local/,
    );
  });

  test("nodes get the machine's devices, all or none", () => {
    expect(vmDevices(() => true)).toContain("/dev/kvm");
    expect(vmDevices((path) => path !== "/dev/vhost-vsock")).toEqual([]);
  });

  test("a pod that shares its node's boot is in no VM; else both kernels are shown", async () => {
    const machine = (boot: string, release: string) => async (file: string) =>
      file.endsWith("boot_id") ? boot : release;
    await expect(compareKernels("p", machine("a", "6.1"), machine("a", "6.1"))).rejects.toThrow(
      /runs on its node's own/,
    );
    const kernels = await compareKernels("p", machine("a", "6.18"), machine("b", "6.1"));
    expect(kernels).toEqual({ guest: "6.18", node: "6.1" });
    const proof = { ...{ handler: "h", pod: "p", node: "n" }, shim: { pid: "1", program: "s" }, files: [], kernels };
    const cluster = {
      ...{ kubeconfig: "", registry: "", networkNamespace: "", nodes: [] },
      images: { busybox: "", pause: "" },
    };
    expect(picture({ stack: "dev-vm", cluster, proofs: [proof] })).toContain("6.18 in the pod's VM, 6.1 on n");
    expect(picture({ stack: "dev-vm", cluster, proofs: [] })).toContain("preview --diff --stack dev-vm");
  });
});

describe("the payload of npm start with VMs", () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "start-"));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  test("is a copy of one that the lock command made, whole and under the stack's name", async () => {
    const roles = { shim: "bin/shim", vmm: "bin/vmm", kernel: "share/kernel", rootfs: "share/rootfs" };
    const files = Object.entries(roles).map(([role, path]) => {
      const mode = path.startsWith("bin/") ? "0755" : "0644";
      return { role, path, mode, size: role.length, sha256: sha256(role) };
    });
    const given = join(directory, "given");
    for (const folder of ["bin", "share"]) mkdirSync(join(given, "files", folder), { recursive: true });
    for (const { role, path } of files) writeFileSync(join(given, "files", path), role);
    const guest = { rootfsType: "ext4", kernelParams: "", kernelVerityParams: "" };
    const manifest = {
      ...{ schemaVersion: 1, name: "mine", flavour: "kata-go", kataVersion: "4.2.0" },
      ...{ source: { kind: "files", reference: "mine" }, files, guest },
    };
    writeFileSync(join(given, "manifest.json"), JSON.stringify(manifest));
    const target = join(directory, "metal-qemu-insecure");
    const made = await ensureVmPayload({ payload: given }, () => {}, target);
    expect(made).toMatchObject({ name: "metal-qemu-insecure", kataVersion: "4.2.0" });
    expect(readFileSync(join(target, "files", "share/kernel"), "utf8")).toBe("kernel");

    // Of a snapshotter's place, say, a payload for another platform.
    cpSync(given, join(directory, "other"), { recursive: true });
    const other = { ...manifest, files: files.filter(({ role }) => role !== "vmm") };
    writeFileSync(join(directory, "other", "manifest.json"), JSON.stringify(other));
    await expect(ensureVmPayload({ payload: join(directory, "other") }, () => {}, target)).rejects.toThrow(
      /has no file of role vmm, which metal-qemu-insecure needs/,
    );
  });

  test("that is none, or not whole, is named with what one is, and nobody is told to delete anything", async () => {
    const take = (payload: string) => ensureVmPayload({ payload }, () => {}, join(directory, "metal-qemu-insecure"));
    const nothing = join(directory, "nothing");
    await expect(take(nothing)).rejects.toThrow(
      `${nothing}/manifest.json cannot be read: no such file or directory. A payload is a directory with manifest.json and files/, as npx contrast-runtime lock leaves it in .local/payloads/NAME. Lock it again.`,
    );
    const half = join(directory, "half");
    const source = { kind: "files", reference: "mine" };
    const files = [{ role: "shim", path: "bin/shim", mode: "0755", size: 4, sha256: sha256("shim") }];
    mkdirSync(half);
    const manifest = { schemaVersion: 1, name: "half", flavour: "kata-go", kataVersion: "4.2.0", source, files };
    writeFileSync(join(half, "manifest.json"), JSON.stringify(manifest));
    await expect(take(half)).rejects.toThrow(`${half}/files/bin/shim is not there. A payload is`);
    mkdirSync(join(half, "files/bin"), { recursive: true });
    writeFileSync(join(half, "files/bin/shim"), "longer");
    await expect(take(half)).rejects.toThrow(`${half}/files/bin/shim has 6 bytes instead of 4. A payload is`);
  });

  test("that cannot be downloaded: the release is named, and what to do without", async () => {
    const mirror = "http://127.0.0.1:1";
    await expect(ensureVmPayload({ mirror }, () => {}, join(directory, "metal-qemu-insecure"))).rejects.toThrow(
      new RegExp(`^Kata ${newestRelease("kata-go")} cannot be had: .*--mirror URL.*--payload DIRECTORY.*\\n.*local`),
    );
  });
});
