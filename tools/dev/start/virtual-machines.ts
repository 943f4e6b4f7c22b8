import { cp } from "node:fs/promises";
import { join, resolve } from "node:path";
import { deriveRuntime } from "../../../measure/runtime.ts";
import type { Host } from "../../../node-installer/host/host.ts";
import { createNodeHost } from "../../../node-installer/host/node-host.ts";
import { checkHost, gatherHostFacts } from "../../../node-installer/requirements/check-host.ts";
import type { Manifest } from "../../../runtime/manifest.ts";
import { platforms } from "../../../runtime/platforms.ts";
import { Refusal } from "../../../runtime/refusal.ts";
import { packageRoot } from "../../files/project.ts";
import { newestRelease } from "../../lock/kata-release.ts";
import { lock } from "../../lock/order.ts";
import { readPayload, replacePayload, wholePayload } from "../../lock/payload-directory.ts";
import type { Progress } from "../../process/progress.ts";

/** The platform of `npm start` whose pods run in VMs, on any machine with KVM. */
const platform = "metal-qemu-insecure";
const payloads = join(packageRoot, ".local", "payloads");
const without = "Without --platform, npm start uses the platform local, which needs neither KVM nor a Kata.";

/** What a node of this machine will need of it, checked before anything is built. */
export async function requireVirtualMachines(host: Host = createNodeHost({ root: "/" })): Promise<void> {
  const problems = checkHost(await gatherHostFacts(host, []), [platforms[platform].host])
    .filter(({ severity }) => severity === "error")
    .map(({ message }) => message);
  if (problems.length > 0)
    throw new Refusal("no-kvm", `This machine cannot start VMs. ${problems.join(" ")}\n${without}`);
}

/** Where the Kata comes from: a release, or a payload that the lock command made. */
export interface VmPayloadSource {
  /** A payload's directory: manifest.json, and below files/ what it describes. */
  payload?: string | undefined;
  /** Instead of GitHub: the URL of the directory that holds the release's assets. */
  mirror?: string | undefined;
}

/** Makes the payload of the stack dev-vm, unless it is there. @throws Refusal where no Kata can be had */
export async function ensureVmPayload(
  { payload, mirror }: VmPayloadSource,
  progress: Progress,
  directory = join(payloads, platform),
): Promise<Manifest> {
  if (payload !== undefined) return await copyPayload(resolve(payload), directory, progress);
  const kataVersion = newestRelease("kata-go");
  const present = await readPayload(directory);
  if (present?.source.kind === "kata-release" && present.kataVersion === kataVersion) return present;
  const order = {
    ...({ source: "kata-release", flavour: "kata-go", platform, kataVersion, mirror } as const),
    ...{ name: platform, payloads: join(directory, ".."), output: join(directory, "manifest.json") },
    ...{ file: [], acknowledge: [], rtmr0: [] },
  };
  try {
    return (await lock(order, progress)).manifest;
  } catch (error) {
    if (!(error instanceof Refusal) || !error.code.startsWith("download-")) throw error;
    throw new Refusal(
      "no-kata",
      `Kata ${kataVersion} cannot be had: ${error.message} Name a mirror of the release (--mirror URL), or a payload that "npm run lock" made (--payload DIRECTORY).\n${without}`,
      { cause: error },
    );
  }
}

async function copyPayload(from: string, directory: string, progress: Progress): Promise<Manifest> {
  const { schemaVersion: _, files, ...manifest } = await wholePayload(from);
  return await replacePayload(
    directory,
    async (target) => {
      for (const { path } of files) await cp(join(from, "files", path), join(target, path));
      return { manifest: { ...manifest, name: platform }, files: files.map(({ role, path }) => ({ role, path })) };
    },
    progress,
    (candidate) => void deriveRuntime({ platform, manifest: candidate }),
  );
}
