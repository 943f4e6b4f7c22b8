import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { deriveRuntime } from "../../measure/runtime.ts";
import { renderSpec } from "../../runtime/derive.ts";
import type { Manifest, PayloadFile } from "../../runtime/manifest.ts";
import type { DistributionName, RuntimeSpec } from "../../runtime/spec.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { containerdPrograms } from "../../tools/programs/pinned.ts";

export interface SmallPayload {
  manifest: Manifest;
  /** The payload's directory, with `files/` in it, as for an image. */
  directory: string;
  runtime: RuntimeSpec;
}

/**
 * A payload of the platform `local` with only what its sandboxes need, the shim, and a file that distinguishes payloads:
 * quick to copy, for tests that are not about copying.
 */
export async function smallPayload(
  parent: string,
  name: string,
  { kernelBytes = 1_000, snapshotter }: { kernelBytes?: number; snapshotter?: string } = {},
): Promise<SmallPayload> {
  const directory = join(parent, name);
  const shim = join(await containerdPrograms("1.7", toStderr), "containerd-shim-runc-v2");
  const file = (role: PayloadFile["role"], path: string, mode: PayloadFile["mode"], content: Buffer): PayloadFile => {
    const target = join(directory, "files", path);
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, content);
    chmodSync(target, Number.parseInt(mode, 8));
    return { role, path, mode, size: content.length, sha256: createHash("sha256").update(content).digest("hex") };
  };
  const manifest: Manifest = {
    schemaVersion: 1,
    name,
    flavour: "none",
    kataVersion: "none",
    source: { kind: "files", reference: "containerd's runc shim, for a test" },
    files: [
      file("shim", "bin/containerd-shim-contrast-cc-v2", "0755", readFileSync(shim)),
      file("kernel", "share/kata-kernel", "0644", Buffer.alloc(kernelBytes, name)),
      ...(snapshotter ? [file("snapshotter", `bin/${basename(snapshotter)}`, "0755", readFileSync(snapshotter))] : []),
    ],
  };
  return { manifest, directory, runtime: deriveRuntime({ platform: "local", manifest }) };
}

/** The text of an install spec. */
export const specOf = (
  group: string,
  runtimes: RuntimeSpec[],
  atOnce = 1,
  name: DistributionName = "containerd",
): string => renderSpec({ group, distribution: { name }, atOnce, verifySandbox: false, runtimes }).json;
