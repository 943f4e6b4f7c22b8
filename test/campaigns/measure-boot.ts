// measure-boot.ts: QEMU, with emulation, boots the firmware, kernel, initrd and command line that the local payload is
// measured with; the guest must come up on its verified root file system, and must not with one byte of the image flipped.
import { spawn } from "node:child_process";
import { closeSync, copyFileSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { withVcpus } from "../../measure/kata-kernel-command-line.ts";
import { ensureLocalPayload } from "../../tools/local-payload/local-payload.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { debianTree } from "../../tools/programs/debian.ts";
import { passedLine } from "../unit/measure/pod-vm.ts";

const up = "is up, on a verified root file system";
/** The kernel's own message. */
const corrupted = /device-mapper: verity: .* is corrupted/;

const { manifest, directory } = await ensureLocalPayload();
const share = (name: string) => join(directory, "files/share", name);
if (manifest.guest === undefined) throw new Error("the local payload's manifest has no guest image");
// QEMU only shows the serial console here; the parameter is part of the measured command line like any other.
const kata = { flavour: "kata-go", kataVersion: "3.30.0" };
const commandLine = withVcpus(passedLine(kata, { ...manifest.guest, kernelParams: "console=ttyS0" }) ?? "", 1);
const tree = await debianTree(
  { name: "qemu", suite: "trixie", packages: ["qemu-system-x86"], finish: "true" },
  toStderr,
);

/** What the guest prints until it powers off. */
async function boot(image: string): Promise<string> {
  const libraries = join(tree, "usr/lib/x86_64-linux-gnu");
  const machine = [
    "-machine",
    "q35,accel=tcg",
    "-cpu",
    "max",
    "-m",
    "512",
    "-nodefaults",
    "-no-reboot",
    "-display",
    "none",
    "-serial",
    "stdio",
  ];
  const files = [
    "-bios",
    share("OVMF.fd"),
    "-kernel",
    share("kata-kernel"),
    "-initrd",
    share("kata-initrd.zst"),
    "-append",
    commandLine,
  ];
  const disk = [
    "-drive",
    `file=${image},format=raw,if=none,id=root,read-only=on`,
    "-device",
    "virtio-blk-pci,drive=root",
  ];
  const loader = [
    "--library-path",
    libraries,
    join(tree, "usr/bin/qemu-system-x86_64"),
    "-L",
    join(tree, "usr/share/qemu"),
    "-L",
    join(tree, "usr/share/seabios"),
  ];
  const guest = spawn(join(libraries, "ld-linux-x86-64.so.2"), [...loader, ...machine, ...files, ...disk], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const limit = setTimeout(() => guest.kill("SIGKILL"), 300_000);
  let printed = "";
  guest.stdout.on("data", (chunk: Buffer) => {
    printed += chunk.toString("latin1");
  });
  await new Promise((done) => guest.on("close", done));
  clearTimeout(limit);
  return printed;
}

/** A letter of the guest's init script: without dm-verity the guest would boot and print another sentence. */
function flipByte(image: string): number {
  const at = readFileSync(image).indexOf(up);
  if (at < 0) throw new Error("the image does not hold its init script as plain text");
  const file = openSync(image, "r+");
  writeSync(file, "I", at);
  closeSync(file);
  return at;
}

const scratch = mkdtempSync(join(tmpdir(), "measure-boot-"));
try {
  const image = join(scratch, "image");
  copyFileSync(share("kata-containers.img"), image);
  const results: [string, boolean, string][] = [];
  const good = await boot(image);
  results.push(["the measured parts boot", good.includes(up), good]);
  const at = flipByte(image);
  const bad = await boot(image);
  results.push([
    `one byte changed at ${at}: dm-verity detects it, and there is no boot`,
    corrupted.test(bad) && !/is up|Is up/.test(bad),
    bad,
  ]);
  for (const [name, ok, printed] of results) {
    console.log(`${ok ? "ok    " : "FAILED"} ${name}`);
    if (!ok) console.log(printed.slice(-3000));
  }
  process.exitCode = results.every(([, ok]) => ok) ? 0 : 1;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
