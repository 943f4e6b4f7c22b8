/** The orders of `lock`: what was asked for on the command line becomes a payload and its manifest. */
import { join } from "node:path";
import type * as z from "zod";
import { type Assessment, advisoryName, assess, explainOpen } from "../../runtime/advisories.ts";
import { type FlavourName, flavourTitles, supportedPair } from "../../runtime/flavours.ts";
import { type FileRole, type guestImage, type Manifest, manifestSchema } from "../../runtime/manifest.ts";
import { platforms } from "../../runtime/platforms.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { PlatformName } from "../../runtime/spec.ts";
import { readManifest } from "../files/manifest.ts";
import { namedCa } from "../files/named-file.ts";
import { projectDirectory } from "../files/project.ts";
import type { Progress } from "../process/progress.ts";
import type { LockRequest } from "./lock.ts";
import { refetch } from "./refetch.ts";
import { lockFrom, type Source } from "./sources.ts";

/** What no source changes. */
interface Common {
  platform: PlatformName;
  flavour: FlavourName;
  kataVersion: string;
  /** Default: from platform, flavour and version. */
  name?: string | undefined;
  file: { role: FileRole; path: string }[];
  kataConfig?: string | undefined;
  rootfsType?: z.infer<typeof guestImage>["rootfsType"] | undefined;
  kernelParams?: string | undefined;
  kernelVerityParams?: string | undefined;
  commandLine?: string | undefined;
  rtmr0: [count: string, value: string][];
  acknowledge: string[];
  output?: string | undefined;
  payloads?: string | undefined;
}
export type LockOrder = Common & Source;

export interface Locked {
  manifest: Manifest;
  /** The one that was committed before. */
  before: Manifest | undefined;
  output: string;
  directory: string;
  /** A line for each known hole. */
  holes: string[];
}

/** Fetches and locks. */
export async function lock(order: LockOrder, progress: Progress): Promise<Locked> {
  const common = request(order);
  const holes = acknowledgedHoles(common, order.acknowledge);
  const { output, directory } = common;
  // One that is no manifest, as after a merge that went wrong, is written anew.
  const before = await readManifest(output, "").catch(() => undefined);
  const manifest = await lockFrom(order, common, progress);
  return { manifest, before, output, directory, holes };
}

/** Takes the files of a manifest that is committed already. */
export async function fetchCommitted(
  options: {
    manifest: string;
    payloads?: string | undefined;
    mirror?: string | undefined;
    ca?: string | undefined;
  },
  progress: Progress,
): Promise<Locked> {
  const output = options.manifest;
  const manifest = await readManifest(output, "Restore it, or lock the payload again.");
  const directory = payloadDirectory(manifest.name, options.payloads);
  const ca = options.ca === undefined ? undefined : await namedCa(options.ca);
  await refetch(manifest, { directory, mirror: options.mirror, ca }, progress);
  return { manifest, before: manifest, output, directory, holes: [] };
}

const payloadDirectory = (name: string, payloads = join(projectDirectory, ".local", "payloads")): string =>
  join(payloads, name);

/** The part of the request that no source changes. */
function request(order: LockOrder): Omit<LockRequest, "layout" | "source"> {
  const { platform, flavour, kataVersion, rootfsType, kernelParams, kernelVerityParams, commandLine } = order;
  const { name = `${platform}-${flavour}-${kataVersion}` } = order;
  if (order.source === "kata-release" && !/^\d+\.\d+\.\d+(-[a-z0-9.]+)?$/.test(kataVersion))
    throw new Refusal(
      "usage",
      `--kata-version "${kataVersion}" is no Kata release: expected such as 4.1.0${kataVersion.startsWith("v") ? ', without the "v"' : ""}.`,
    );
  if (order.source === "kata-release" && flavour === "contrast-go")
    throw new Refusal(
      "usage",
      `Kata's releases have no ${flavour}: ${flavourTitles[flavour]} is in the image of Contrast's node installer. Take it from there with "lock oci-image --image REPOSITORY@sha256:…", or Kata's own with --flavour kata-go or kata-rs.`,
    );
  const checked = manifestSchema.shape.name.safeParse(name);
  if (!checked.success)
    throw new Refusal("usage", `--name "${name}": ${checked.error.issues.map(({ message }) => message).join(", ")}.`);
  const { vmm, tee } = platforms[platform];
  if (order.rtmr0.length > 0 && tee !== "tdx")
    throw new Refusal("usage", `--rtmr0 is of TDX, which ${platform} does not have.`);
  if (commandLine !== undefined && vmm !== "qemu")
    throw new Refusal(
      "usage",
      `--command-line is not for ${platform}: ${vmm === "none" ? "it has no VM" : "its IGVM file holds the command line"}.`,
    );
  return {
    name,
    platform,
    flavour,
    kataVersion,
    named: order.file,
    kataConfiguration: order.kataConfig,
    guest: { rootfsType, kernelParams, kernelVerityParams },
    commandLine,
    rtmr0: order.rtmr0,
    directory: payloadDirectory(name, order.payloads),
    output: order.output ?? join(projectDirectory, "payloads", `${name}.json`),
  };
}

/** What is known of this Kata and put up with, or cannot be used here: a line each. @throws Refusal for anything else */
function acknowledgedHoles(
  { platform, flavour, kataVersion, guest }: Omit<LockRequest, "layout" | "source">,
  acknowledge: readonly string[],
): string[] {
  supportedPair(platform, flavour, kataVersion);
  const manifest = { flavour, kataVersion, guest: { kernelParams: guest.kernelParams ?? "" } };
  const { open, acknowledged, closed, mistakes }: Assessment = assess({ platform, manifest }, acknowledge);
  const [mistake] = mistakes;
  if (mistake) throw new Refusal("usage", `--acknowledge ${mistake.message}`);
  const words = (ids: string[]) => ids.map((id) => `--acknowledge ${id}`).join(" ");
  if (open.length > 0)
    throw new Refusal(
      "known-advisories",
      `Kata ${kataVersion} (${flavour}) has known holes and was not locked. ${explainOpen(open, (ids) => `${words(ids)} here, and acknowledgedAdvisories: [${ids.join(", ")}] at the stack's runtime`)}`,
    );
  return [
    ...acknowledged.map((hole) => `Known hole, acknowledged: ${advisoryName(hole)}. ${hole.allows} See ${hole.source}`),
    ...closed.map(({ advisory, why }) => `Known hole that cannot be used here: ${advisoryName(advisory)}: ${why}.`),
    ...(acknowledged.length === 0
      ? []
      : [`The stack's runtime says so, too: acknowledgedAdvisories: [${acknowledged.map(({ id }) => id).join(", ")}]`]),
  ];
}
