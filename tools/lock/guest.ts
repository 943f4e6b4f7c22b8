// The second reader of TOML, on purpose, beside smol-toml: what is read here is written by others. Tests read with it what
// the product writes, so that no parser judges itself.
import { parse } from "@iarna/toml";
import * as z from "zod";
import { kataParameters, namesRootHash } from "../../measure/kata-kernel-command-line.ts";
import type { FlavourName } from "../../runtime/flavours.ts";
import { kataFacts } from "../../runtime/kata-versions.ts";
import { type GuestImage, guestImage } from "../../runtime/manifest.ts";
import { platforms } from "../../runtime/platforms.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { PlatformName } from "../../runtime/spec.ts";

/** How the guest image boots, as far as its source or the user says it. */
export type GivenGuest = { [Key in Exclude<keyof GuestImage, "extensions">]?: GuestImage[Key] | undefined } & {
  /** dm-verity parameters of its extensions, by name, in Kata's order. */
  extensions?: Record<string, string> | undefined;
};

const hypervisor = z.object({
  guest_extension_images: z.array(z.object({ name: z.string(), verity_params: z.string().default("") })).optional(),
  rootfs_type: guestImage.shape.rootfsType.optional(),
  kernel_params: z.string().optional(),
  kernel_verity_params: z.string().optional(),
});
// Contrast wrote its table names with capitals until 2025.
const hypervisors = z.record(z.string(), hypervisor).optional();
const kataConfiguration = z.object({ hypervisor: hypervisors, Hypervisor: hypervisors });

/** What a Kata configuration says of the guest image: `[hypervisor.<vmm>]`. */
export function guestOfConfiguration(text: string, file: string): GivenGuest {
  let document: unknown;
  try {
    document = parse(text);
  } catch (error) {
    // Its first line alone: the parser goes on to quote the file.
    const problem = (error as Error).message.replace(/\n.*$/s, "").replace(/(, pos \d+)?:$/, "");
    throw new Refusal("kata-configuration", `${file} is not valid TOML: ${problem}.`);
  }
  const checked = kataConfiguration.safeParse(document);
  if (!checked.success)
    throw new Refusal("kata-configuration", `${file} is not a Kata configuration: ${z.prettifyError(checked.error)}`);
  const [table] = Object.values(checked.data.hypervisor ?? checked.data.Hypervisor ?? {});
  if (!table) throw new Refusal("kata-configuration", `${file} has no table [hypervisor.<vmm>].`);
  return {
    rootfsType: table.rootfs_type,
    kernelParams: table.kernel_params,
    kernelVerityParams: table.kernel_verity_params,
    ...(table.guest_extension_images && {
      extensions: Object.fromEntries(table.guest_extension_images.map((one) => [one.name, one.verity_params])),
    }),
  };
}

/**
 * What is taken of the configuration that a release has for a platform: the file system, dm-verity parameters, and the
 * kernel parameters but for the agent's. Those are made of keys that are rendered here, or open the guest to its host.
 */
export function guestOfTemplate(text: string, file: string): { guest: GivenGuest; left: string[] } {
  const guest = guestOfConfiguration(text, file);
  const words = kataParameters(guest.kernelParams ?? "");
  const isAgents = (word: string) => word.startsWith("agent.");
  const given = (value: string | undefined) => value || undefined;
  return {
    guest: {
      ...guest,
      kernelParams: given(words.filter((word) => !isAgents(word)).join(" ")),
      kernelVerityParams: given(guest.kernelVerityParams),
    },
    left: words.filter(isAgents),
  };
}

/** Where Contrast's installer image says how the guests of its runtime boot. */
export const installerConfiguration = "config/contrast-node-install.json";

/** Go reads its keys in any case, and Contrast has written the first one in two. */
const installer = z.object({ qemuextrakernelparams: z.string().optional(), debugruntime: z.boolean().optional() });

/**
 * What the configuration of Contrast's installer says of the guest image: `qemuExtraKernelParams`, which replace Kata's own
 * `kernel_params` and hold the image's root hash. Images for Cloud Hypervisor have none: their IGVM file does.
 */
export function guestOfInstaller(text: string, file: string): GivenGuest {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw new Refusal("installer-configuration", `${file} is not JSON: ${(error as Error).message}.`);
  }
  const keys = typeof document === "object" && document !== null ? Object.entries(document) : [];
  const checked = installer.safeParse(Object.fromEntries(keys.map(([key, value]) => [key.toLowerCase(), value])));
  if (!checked.success)
    throw new Refusal(
      "installer-configuration",
      `${file} is not the configuration of Contrast's installer: ${z.prettifyError(checked.error)}`,
    );
  const { qemuextrakernelparams: kernelParams, debugruntime: isDebug } = checked.data;
  if (isDebug)
    throw new Refusal(
      "debug-image",
      `${file} says debugRuntime: guests of this image give everybody on the host a shell. Take an image of a release.`,
    );
  return { kernelParams };
}

/**
 * Everything together, the first that says a value winning. Where nobody says how the root file system is protected there
 * is no payload: a guest that takes any root file system is not confidential.
 */
export function completeGuest(
  platform: PlatformName,
  flavour: FlavourName,
  kataVersion: string,
  sources: GivenGuest[],
  /** Files of the payload that are extensions, by name. */
  extensions: { name: string; path: string }[] = [],
): GuestImage | undefined {
  const { vmm, tee, gpu } = platforms[platform];
  if (vmm === "none") return undefined;
  const first = <Key extends keyof GuestImage>(key: Key) =>
    sources.map((source) => source[key]).find((value) => value !== undefined);
  const usual = gpu ? kataFacts(kataVersion).gpuRootfs : "ext4";
  const rootfsType = first("rootfsType") ?? (flavour === "contrast-go" && vmm === "qemu" ? "erofs" : usual);
  const kernelParams = first("kernelParams") ?? "";
  const kernelVerityParams = first("kernelVerityParams") ?? "";
  // An IGVM file holds kernel and command line, and in it the root hash.
  const igvm = vmm === "cloud-hypervisor";
  if (tee !== "none" && !igvm && kernelVerityParams === "" && !namesRootHash(kernelParams))
    throw new Refusal(
      "verity-unknown",
      "The root hash of the guest image is not known: its source publishes none. Give what the image's builder published, as --kernel-verity-params root_hash=…,salt=…,data_blocks=…,data_block_size=…,hash_block_size=… or in --kernel-params (… roothash=<hex>).",
    );
  const params = sources.map((source) => source.extensions ?? {});
  const order = params.flatMap((each) => Object.keys(each));
  const absent = order.find((name) => !extensions.some((one) => one.name === name));
  if (absent !== undefined && flavour === "kata-rs")
    throw new Refusal(
      "payload-incomplete",
      `The guest's image has the extension ${absent}, but its file is not there. Name it with --file rootfs-extension=…/kata-containers-${absent}-extension.img.`,
    );
  const rank = ({ name }: { name: string }) => (order.includes(name) ? order.indexOf(name) : order.length);
  const composed = extensions
    .toSorted((a, b) => rank(a) - rank(b))
    .map(({ name, path }) => {
      const verityParams = params.map((each) => each[name]).find((value) => value);
      if (verityParams !== undefined) return { name, path, verityParams };
      throw new Refusal(
        "verity-unknown",
        `The root hash of the guest image's extension ${name} (${path}) is not known: its source publishes none. Name a Kata configuration that has it, in [[hypervisor.qemu.guest_extension_images]], with --kata-config.`,
      );
    });
  return { rootfsType, kernelParams, kernelVerityParams, ...(composed.length > 0 && { extensions: composed }) };
}
