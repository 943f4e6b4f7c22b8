import { mkdtemp, readFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { deriveRuntime } from "../../measure/runtime.ts";
import { type FlavourName, supportedPair } from "../../runtime/flavours.ts";
import { isUnread, newestRead } from "../../runtime/kata-versions.ts";
import type { FileRole, Manifest } from "../../runtime/manifest.ts";
import { platforms } from "../../runtime/platforms.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { PlatformName } from "../../runtime/spec.ts";
import { replaceFile } from "../files/replace.ts";
import type { Progress } from "../process/progress.ts";
import type { FileTree } from "./archives.ts";
import {
  completeGuest,
  type GivenGuest,
  guestOfConfiguration,
  guestOfInstaller,
  guestOfTemplate,
  installerConfiguration,
} from "./guest.ts";
import {
  type Chosen,
  choose,
  extensionName,
  kataRelease,
  placeOf,
  runtimeDirectoryLayout,
  type Wanted,
} from "./layouts.ts";
import { measurementOf } from "./measurement.ts";
import { type PayloadContent, replacePayload } from "./payload-directory.ts";

/** What is locked, from wherever. */
export interface LockRequest {
  name: string;
  platform: PlatformName;
  flavour: FlavourName;
  kataVersion: string;
  source: Manifest["source"];
  /** Where the tree has its files: as a Kata release, or as a runtime's directory below this path of the tree. */
  layout: "kata-release" | { root: string } | "named files only";
  /** Files named one by one, by role: paths of the tree, instead of what the layout finds. */
  named: { role: FileRole; path: string }[];
  /** A path of the tree, of which the guest's boot parameters are taken: a Kata configuration, or Contrast's (*.json). */
  kataConfiguration?: string | undefined;
  /** What the user says of the guest; comes before what the tree says. */
  guest: GivenGuest;
  /** The measured command line, where the user says it; see measure/collect-inputs.ts. */
  commandLine: string | undefined;
  /** RTMR0 by vCPU count, where the user says it. */
  rtmr0: [count: string, value: string][];
  /** The payload on this machine. */
  directory: string;
  /** The manifest's committed copy. */
  output: string;
}

/**
 * Copies what the platform needs out of the tree, checks that it belongs together (the rootfs image with its hash tree, the
 * files with platform and flavour), takes the inputs of measurements, and writes payload and manifest as a whole.
 */
export async function lockPayload(request: LockRequest, tree: FileTree, progress: Progress): Promise<Manifest> {
  const { name, platform, flavour, kataVersion, source, directory, output } = request;
  supportedPair(platform, flavour, kataVersion);
  warnOfUnread(request, progress);
  const { files, verityParams, extensions, configurations, template } = chooseFiles(request, tree);
  progress(`Taking ${files.length} files from ${tree.name} …`);
  const manifest = await replacePayload(
    directory,
    async (target): Promise<PayloadContent> => {
      const texts = [...verityParams, ...extensions.map(({ source }) => source), ...configurations, ...template];
      const textOf = await copyFiles(tree, files, texts, target);
      const sources: GivenGuest[] = [
        request.guest,
        ...verityParams.map((path) => ({ kernelVerityParams: textOf(path).trim() })),
        { extensions: Object.fromEntries(extensions.map(({ name, source }) => [name, textOf(source).trim()])) },
        ...configurations.map((path) =>
          path.endsWith(".json") ? guestOfInstaller(textOf(path), path) : guestOfConfiguration(textOf(path), path),
        ),
        ...template.map((path) => ofTemplate(textOf(path), path, progress)),
      ];
      const guest = completeGuest(platform, flavour, kataVersion, sources, extensionsAmong(files));
      const described = { name, flavour, kataVersion, source, ...(guest ? { guest } : {}) };
      // Without a TEE nothing is measured, so any firmware will do; that the image fits its hash tree is checked all the same.
      const hasTee = platforms[platform].tee !== "none";
      const inputs = hasTee ? files : files.filter(({ role }) => role !== "firmware");
      const rtmr0 = request.rtmr0.length > 0 ? Object.fromEntries(request.rtmr0) : undefined;
      const measurement = measurementOf(target, inputs, { guest, commandLine: request.commandLine, rtmr0 });
      return {
        manifest: { ...described, ...(hasTee && { measurement }) },
        files: files.map(({ role, path }) => ({ role, path })),
      };
    },
    progress,
    (candidate) => void deriveRuntime({ platform, manifest: candidate }),
  );
  await replaceFile(output, `${JSON.stringify(manifest, undefined, 2)}\n`);
  return manifest;
}

/** What a Kata that nobody here has looked at is taken for. */
function warnOfUnread({ kataVersion, flavour }: LockRequest, progress: Progress): void {
  if (flavour === "none" || !isUnread(kataVersion)) return;
  progress(
    `Kata ${kataVersion} is newer than ${newestRead}, the newest whose sources were read here, and is treated like it: keys that it does not know any more have no effect, or keep its pods from starting. Its kernel command line is not predicted; give the one that its guests measure with --command-line.`,
  );
}

function ofTemplate(text: string, path: string, progress: Progress): GivenGuest {
  const { guest, left } = guestOfTemplate(text, path);
  if (left.length > 0) progress(`Kernel parameters of ${path} that are not taken: ${left.join(" ")}.`);
  return guest;
}

function extensionsAmong(files: Chosen[]): { name: string; path: string }[] {
  return files
    .filter(({ role }) => role === "rootfs-extension")
    .map(({ path }) => {
      const name = extensionName(path);
      if (name === undefined)
        throw new Refusal(
          "usage",
          `${basename(path)} is no name of an extension of a guest image: expected kata-containers-NAME-extension.img.`,
        );
      return { name, path };
    });
}

interface ChosenFiles {
  files: Chosen[];
  /** Texts that say how the guest boots, those that the tree has. */
  verityParams: string[];
  extensions: { name: string; source: string }[];
  configurations: string[];
  /** The release's own, of which less is taken. */
  template: string[];
}

/** The payload's files, and the texts that say how its guest boots. */
function chooseFiles(request: LockRequest, tree: FileTree): ChosenFiles {
  const { layout, named, platform, flavour, kataConfiguration } = request;
  const byName = named.map(({ role, path }): Wanted => ({ role, path: placeOf[role](basename(path)), from: [path] }));
  const isNamed = ({ role }: Wanted) => named.some((one) => one.role === role);
  const there = (paths: string[]) => paths.map((path) => tree.resolve(path)).filter((path) => path !== undefined);
  let wanted: Wanted[] = [];
  const texts: Omit<ChosenFiles, "files"> = { verityParams: [], extensions: [], configurations: [], template: [] };
  if (layout === "kata-release") {
    const release = kataRelease(platform, flavour, tree);
    wanted = release.files;
    texts.verityParams = there([release.verityParams]);
    texts.template = there([release.template]);
    texts.extensions = release.extensions.flatMap(({ name, verityParams }) =>
      there([verityParams]).map((source) => ({ name, source })),
    );
  } else if (layout !== "named files only") {
    wanted = runtimeDirectoryLayout(platform, flavour, tree, layout.root);
    const etc = `${layout.root}/etc/`.replace(/^\//, "");
    const configurations = tree.paths.filter(
      (path) => path.startsWith(etc) && /^configuration-[^/]*\.toml$/.test(path.slice(etc.length)),
    );
    // Several: which one is in use is not ours to guess.
    if (configurations.length === 1) texts.configurations = configurations;
  }
  const ofInstaller = layout === "named files only" ? undefined : tree.resolve(installerConfiguration);
  if (ofInstaller !== undefined) texts.configurations = [...texts.configurations, ofInstaller];
  if (kataConfiguration !== undefined) {
    const path = tree.resolve(kataConfiguration);
    if (!path) throw new Refusal("no-file", `${tree.name} has no file ${kataConfiguration}.`);
    texts.configurations = [path];
  }
  return { files: choose([...byName, ...wanted.filter((one) => !isNamed(one))], tree), ...texts };
}

/** Copies everything in one pass; returns what looks up the texts by their paths. */
async function copyFiles(
  tree: FileTree,
  files: Chosen[],
  texts: string[],
  target: string,
): Promise<(path: string) => string> {
  const aside = await mkdtemp(join(target, "..", "texts-"));
  try {
    const place = (index: number) => join(aside, String(index));
    await tree.copy([
      ...files.map(({ source, path }) => ({ path: source, target: join(target, path) })),
      ...texts.map((path, index) => ({ path, target: place(index) })),
    ]);
    const contents = new Map(
      await Promise.all(texts.map(async (path, index) => [path, await readFile(place(index), "utf8")] as const)),
    );
    return (path) => {
      const content = contents.get(path);
      if (content === undefined) throw new Error(`${path} was not copied`);
      return content;
    };
  } finally {
    await rm(aside, { recursive: true });
  }
}
