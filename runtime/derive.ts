import { basename } from "node:path/posix";
import { containerAnnotations, podAnnotations } from "./annotations.ts";
import { canonicalJson, sha256 } from "./canonical.ts";
import { kubeletRootOf } from "./distributions.ts";
import { type FlavourName, supportedPair } from "./flavours.ts";
import { imagePullerPath } from "./guest-registry.ts";
import { deriveHandler, type RuntimeContents } from "./handler.ts";
import { type KataConfiguration, kataConfiguration, kataConfigurationText } from "./kata-configuration.ts";
import { type KataChanges, withChanges } from "./kata-overrides.ts";
import type { FileRole, Manifest, PayloadFile } from "./manifest.ts";
import { type Platform, platforms } from "./platforms.ts";
import { Refusal } from "./refusal.ts";
import {
  type ContainerdEntry,
  type DistributionName,
  type InstallSpec,
  installSpecSchema,
  type PlatformName,
  type RuntimeSpec,
  runtimeDirectory,
} from "./spec.ts";

/** A runtime as a stack lists it: a payload, and the platform that it is for. */
export interface RuntimeChoice {
  platform: PlatformName;
  manifest: Manifest;
  /** How its nodes run containerd; absent: any whose kubelet is in Kubernetes' own place. */
  distribution?: DistributionName | undefined;
  /** What its user sets beyond both, once it is judged (kata-overrides.ts). */
  changes?: KataChanges | undefined;
  /** Its guests are told how to reach registries, if they are such as read that on the node. */
  guestRegistry?: boolean | undefined;
}

/** What a payload is on a platform: what nodes get, and the Kata configuration in it as a document. */
export interface DerivedRuntime {
  spec: RuntimeSpec;
  configuration: KataConfiguration;
}

/**
 * What a payload becomes on a platform: handler, files, Kata configuration, containerd entry. Pure, so that program,
 * plan and tests derive the same name from the same bytes. Throws `Refusal` where the payload cannot serve the platform.
 * Whether its parts make a guest that is bound to its launch measurement is checked by measure/runtime.ts, which everybody
 * else calls.
 */
export function deriveSpec({
  platform: name,
  manifest,
  distribution,
  changes,
  guestRegistry,
}: RuntimeChoice): DerivedRuntime {
  const platform = platforms[name];
  const { flavour } = supportedPair(name, manifest.flavour, manifest.kataVersion);
  const files = manifest.files.toSorted((a, b) => (a.path < b.path ? -1 : 1));
  checkFiles(name, platform, manifest, files);

  const placeOf = (handler: string) => (path: string) => `${runtimeDirectory(handler)}/${path}`;
  const hasPuller = guestRegistry === true && readsRegistryOnNode({ platform: name, manifest });
  const pathOf = (handler: string) => (role: FileRole) => {
    const file = files.find((file) => file.role === role);
    return file && placeOf(handler)(file.path);
  };
  const kubeletRoot = kubeletRootOf(distribution);
  const configuration = (handler: string): KataConfiguration => {
    const { kataVersion, guest } = manifest;
    const [path, place] = [pathOf(handler), placeOf(handler)];
    const written = kataConfiguration({ platform, flavour, kataVersion, path, place, guest, kubeletRoot });
    const puller = hasPuller ? `${runtimeDirectory(handler)}/${imagePullerPath}` : undefined;
    return withChanges(written, changes, puller);
  };
  const contents = (handler: string): RuntimeContents => ({
    files,
    kataConfig: { path: platform.kataConfigPath, content: kataConfigurationText(configuration(handler)) },
    containerd: containerdEntry(handler, platform, flavour, pathOf(handler)),
  });
  const handler = deriveHandler(name, contents, changes);
  return {
    spec: {
      ...{ handler, platform: name, payload: manifest.name, ...contents(handler), host: platform.host },
      ...(hasPuller && { imagePuller: imagePullerPath }),
    },
    configuration: configuration(handler),
  };
}

/** Whether the guests are Contrast's, which are told on the node how to reach registries. */
export const readsRegistryOnNode = ({ platform, manifest }: Pick<RuntimeChoice, "platform" | "manifest">): boolean =>
  manifest.flavour === "contrast-go" && platforms[platform].host.guestPull;

/** Whether the guests are upstream's, which are told so by their initdata. */
export const readsRegistryInInitdata = ({
  platform,
  manifest,
}: Pick<RuntimeChoice, "platform" | "manifest">): boolean =>
  manifest.flavour !== "contrast-go" && platforms[platform].host.guestPull;

export interface SpecInput {
  group: string;
  formerly?: string;
  distribution: InstallSpec["distribution"];
  atOnce: number;
  verifySandbox: boolean;
  loadPendingChanges?: boolean | undefined;
  startupTaint?: string | undefined;
  /** Ids by handler. */
  advisories?: Record<string, string[]> | undefined;
  runtimes: RuntimeSpec[];
}

/** A group's install spec as a document, as text and as the SHA-256 of that text. Independent of the runtimes' order. */
export function renderSpec({
  runtimes,
  verifySandbox,
  loadPendingChanges,
  startupTaint,
  advisories = {},
  ...group
}: SpecInput): {
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
    // Left out unless wanted, so that specs of groups that do not know them stay as they are.
    ...(loadPendingChanges && { loadPendingChanges }),
    ...(startupTaint !== undefined && { startupTaint }),
    ...(Object.keys(advisories).length > 0 && { advisories }),
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
  const shim = path("shim");
  if (shim === undefined) throw new Error(`${handler}: a platform that requires no shim`);
  const snapshotterFile = path("snapshotter");
  const snapshotter =
    snapshotterFile && (platform.snapshotter ?? basename(snapshotterFile).replace(/-snapshotter$/, ""));
  const forContainers = containerAnnotations(flavour);
  return {
    runtimeType: "io.containerd.contrast-cc.v2",
    runtimePath: shim,
    podAnnotations: podAnnotations(platform, flavour),
    ...(forContainers.length > 0 && { containerAnnotations: forContainers }),
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
  checkExtensions(payload, manifest);
  const upstream = manifest.flavour === "kata-go" || manifest.flavour === "kata-rs";
  if (upstream && files.some(({ role }) => role === "initrd")) {
    throw new Refusal(
      "unsupported-pair",
      `${payload} holds an image and an initrd; upstream Kata boots only one of them. Lock it without the initrd.`,
    );
  }
}

/** Extensions of the guest's image are files of the payload, all of them, for the one runtime that knows them. */
function checkExtensions(payload: string, { flavour, guest, files }: Manifest): void {
  const named = (guest?.extensions ?? []).map(({ path }) => path);
  const there = files.filter(({ role }) => role === "rootfs-extension").map(({ path }) => path);
  const refuse = (problem: string): never => {
    throw new Refusal("payload-incomplete", `${payload} ${problem}. Lock it again.`);
  };
  const missing = named.find((path) => !there.includes(path));
  if (missing !== undefined) refuse(`names ${missing} as an extension of its guest image, but has no such file`);
  const unnamed = there.find((path) => !named.includes(path));
  if (unnamed !== undefined)
    refuse(`has the file ${unnamed}, but does not say which extension of its guest image it is`);
  const names = (guest?.extensions ?? []).map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) < index);
  if (twice !== undefined) refuse(`lists the extension ${twice} of its guest image twice`);
  if (named.length > 0 && flavour !== "kata-rs")
    refuse(`has extensions of its guest image (${names.join(", ")}), which only runtime-rs mounts`);
}
