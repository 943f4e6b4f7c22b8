import { basename } from "node:path/posix";
import { checkConsistency } from "../measure/consistency.ts";
import { podAnnotations } from "./annotations.ts";
import { canonicalJson, sha256 } from "./canonical.ts";
import { type FlavourName, supportedPair } from "./flavours.ts";
import { deriveHandler, type RuntimeContents } from "./handler.ts";
import { renderKataConfiguration } from "./kata-configuration.ts";
import type { FileRole, Manifest, PayloadFile } from "./manifest.ts";
import { type Platform, platforms } from "./platforms.ts";
import { Refusal } from "./refusal.ts";
import {
  type ContainerdEntry,
  type InstallSpec,
  installSpecSchema,
  type PlatformName,
  type RuntimeSpec,
  runtimeDirectory,
} from "./spec.ts";

/**
 * What a payload becomes on a platform: handler, files, Kata configuration, containerd entry. Pure, so that program,
 * plan and tests derive the same name from the same bytes. Throws `Refusal` where the payload cannot serve the platform.
 */
export function deriveRuntime({
  platform: name,
  manifest,
}: {
  platform: PlatformName;
  manifest: Manifest;
}): RuntimeSpec {
  const platform = platforms[name];
  const { flavour } = supportedPair(name, manifest.flavour, manifest.kataVersion);
  const files = manifest.files.toSorted((a, b) => (a.path < b.path ? -1 : 1));
  checkFiles(name, platform, manifest, files);
  checkMeasurement(platform, manifest);

  const contents = (handler: string): RuntimeContents => {
    const directory = runtimeDirectory(handler);
    const path = (role: FileRole) => {
      const file = files.find((file) => file.role === role);
      return file && `${directory}/${file.path}`;
    };
    const content = renderKataConfiguration({
      platform,
      flavour,
      kataVersion: manifest.kataVersion,
      path,
      guest: manifest.guest,
    });
    return {
      files,
      kataConfig: { path: platform.kataConfigPath, content },
      containerd: containerdEntry(handler, platform, flavour, path),
    };
  };
  const handler = deriveHandler(name, contents);
  return { handler, platform: name, payload: manifest.name, ...contents(handler), host: platform.host };
}

/** What the lock command read from the files must be a guest that boots and measures as its reference values say. */
function checkMeasurement({ tee }: Platform, { name, measurement, guest, flavour, kataVersion }: Manifest): void {
  if (measurement === undefined || tee === "none") return;
  const problems = checkConsistency({ inputs: measurement, tee, flavour, kataVersion, ...(guest && { guest }) });
  if (problems.length > 0)
    throw new Refusal(
      "inconsistent-payload",
      `The parts of payload ${name} do not belong together. ${problems.join(" ")} Lock it again with parts of the same build.`,
    );
}

export interface SpecInput {
  group: string;
  distribution: InstallSpec["distribution"];
  atOnce: number;
  verifySandbox: boolean;
  runtimes: RuntimeSpec[];
}

/** A group's install spec as a document, as text and as the SHA-256 of that text. Independent of the runtimes' order. */
export function renderSpec({ runtimes, verifySandbox, ...group }: SpecInput): {
  spec: InstallSpec;
  json: string;
  hash: string;
} {
  const sorted = runtimes.toSorted((a, b) => (a.handler < b.handler ? -1 : 1));
  const twice = sorted.find(({ handler }, i) => handler === sorted[i + 1]?.handler);
  if (twice) {
    throw new Refusal(
      "duplicate-runtime",
      `Group ${group.group} lists the runtime ${twice.handler} (platform ${twice.platform}, payload ${twice.payload}) twice. Remove one.`,
    );
  }
  const spec = installSpecSchema.parse({
    schemaVersion: 1,
    ...group,
    runtimes: sorted,
    verifySandbox: verifySandbox || sorted.some(({ platform }) => platform === "local"),
  });
  const json = `${canonicalJson(spec, 2)}\n`;
  return { spec, json, hash: sha256(json) };
}

function containerdEntry(
  handler: string,
  platform: Platform,
  flavour: FlavourName,
  path: (role: FileRole) => string | undefined,
): ContainerdEntry {
  const snapshotterFile = path("snapshotter");
  const snapshotter =
    snapshotterFile && (platform.snapshotter ?? basename(snapshotterFile).replace(/-snapshotter$/, ""));
  return {
    runtimeType: "io.containerd.contrast-cc.v2",
    runtimePath: path("shim") ?? "",
    podAnnotations: podAnnotations(platform, flavour),
    privilegedWithoutHostDevices: true,
    ...(snapshotter && {
      snapshotter: `${snapshotter}-${handler}`,
      proxyPlugin: {
        name: `${snapshotter}-${handler}`,
        address: `/run/containerd/${snapshotter}-snapshotter-${handler}.sock`,
      },
    }),
    // The runc shim of `local` accepts none of Kata's options: with them every sandbox fails.
    ...(platform.vmm !== "none" && {
      options: { ConfigPath: `${runtimeDirectory(handler)}/${platform.kataConfigPath}` },
    }),
  };
}

function checkFiles(name: PlatformName, platform: Platform, manifest: Manifest, files: PayloadFile[]): void {
  const payload = `Payload ${manifest.name} (${manifest.flavour}, Kata ${manifest.kataVersion})`;
  const missing = platform.requiredRoles.filter((role) => !files.some((file) => file.role === role));
  if (missing.length > 0) {
    throw new Refusal(
      "payload-incomplete",
      `${payload} has no file of role ${missing.join(", ")}, which ${name} needs. Lock a payload made for ${name}.`,
    );
  }
  const single: FileRole[] = ["shim", "vmm", "igvm", "firmware", "kernel", "initrd", "rootfs", "snapshotter"];
  for (const role of single) {
    const paths = files.filter((file) => file.role === role).map(({ path }) => path);
    if (paths.length > 1) {
      throw new Refusal(
        "payload-ambiguous",
        `${payload} has ${paths.length} files of role ${role} (${paths.join(", ")}); one is expected.`,
      );
    }
  }
  const twice = files.find(({ path }, i) => path === files[i + 1]?.path);
  if (twice) throw new Refusal("payload-ambiguous", `${payload} lists the path ${twice.path} twice.`);
  const taken = files.find(({ path }) => path === platform.kataConfigPath);
  if (taken)
    throw new Refusal(
      "payload-ambiguous",
      `${payload} has a file at ${taken.path}, where Kata's configuration of ${name} goes.`,
    );
  if (platform.vmm !== "none" && manifest.guest === undefined) {
    throw new Refusal(
      "payload-incomplete",
      `${payload} does not say how its guest image boots (manifest key "guest"), which ${name} needs. Lock it again.`,
    );
  }
  const upstream = manifest.flavour === "kata-go" || manifest.flavour === "kata-rs";
  if (upstream && files.some(({ role }) => role === "initrd")) {
    throw new Refusal(
      "unsupported-pair",
      `${payload} holds an image and an initrd; upstream Kata boots only one of them. Lock it without the initrd.`,
    );
  }
}
