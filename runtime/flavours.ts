import { oldestKata } from "./kata-versions.ts";
import { Refusal } from "./refusal.ts";
import type { PlatformName } from "./spec.ts";
import { isAtLeast } from "./version.ts";

/** Which Kata a payload contains. `none`: no Kata at all, as in the payload of `local`. */
export const flavourNames = ["contrast-go", "kata-go", "kata-rs", "none"] as const;
export type FlavourName = (typeof flavourNames)[number];

export const flavourTitles: Record<FlavourName, string> = {
  "contrast-go": "Contrast's patched build of Kata's Go runtime",
  "kata-go": "upstream Kata's Go runtime",
  "kata-rs": "upstream Kata's runtime-rs",
  none: "no Kata: containerd's runc shim",
};

/** What a flavour can and cannot do on a platform. */
export type Pair =
  | {
      supported: true;
      /** Oldest Kata version whose keys the configuration table knows. */
      from: string;
      limits: string[];
    }
  | { supported: false; reason: string };

const noInitrd = "Boots only from the image: upstream Kata refuses an image together with an initrd.";
const noIdBlock =
  "Guests start without an ID block: the one block that the file can hold would have to fit every CPU model.";
const cpuModel =
  "Every guest sees the CPU model EPYC-v4, so launch digests are those of EPYC-v4 and not of Milan or Genoa.";
const rsIdBlock = "Guests start without an ID block: runtime-rs reads it but does not hand it to QEMU.";
const rsGuestPull = "Pulling images in the guest is one of runtime-rs's experimental features.";
const rsKubeletRoot =
  "runtime-rs takes the kubelet's directory for /var/lib/kubelet: on k0s and MicroK8s, ConfigMaps and Secrets that change do not reach running guests.";
const noTee = "Pods run in VMs, but the host can read their memory: no memory encryption, no attestation.";
const gpuUntried = "GPU passthrough has not been tested on real hardware.";

const notHere = (flavour: string, platform: string): Pair => ({
  supported: false,
  reason: `${flavour} has no build for ${platform}`,
});
const noIgvm: Pair = {
  supported: false,
  reason: "upstream Kata supports neither IGVM files nor SNP guests on Cloud Hypervisor; only Microsoft's fork does",
};
const supported = (from: string, ...limits: string[]): Pair => ({ supported: true, from, limits });

const { go, rs } = oldestKata;
const goLimits = [noInitrd];
const rsLimits = [noInitrd, rsGuestPull, rsKubeletRoot];

export const pairs: Record<FlavourName, Record<PlatformName, Pair>> = {
  "contrast-go": {
    "aks-clh-snp": supported(
      "3.2.0",
      "Launch digests are those of Milan: the IGVM file's ID block names no other CPU.",
    ),
    "metal-qemu-snp": supported(go),
    "metal-qemu-tdx": supported(go),
    "metal-qemu-snp-gpu": supported(go, gpuUntried),
    "metal-qemu-tdx-gpu": supported(go, gpuUntried),
    "metal-qemu-insecure": supported(go, noTee),
    local: notHere("contrast-go", "local"),
  },
  "kata-go": {
    "aks-clh-snp": noIgvm,
    "metal-qemu-snp": supported(go, ...goLimits, noIdBlock, cpuModel),
    "metal-qemu-tdx": supported(go, ...goLimits),
    "metal-qemu-snp-gpu": supported(go, ...goLimits, noIdBlock, cpuModel, gpuUntried),
    "metal-qemu-tdx-gpu": supported(go, ...goLimits, gpuUntried),
    "metal-qemu-insecure": supported(go, noTee, ...goLimits),
    local: notHere("kata-go", "local"),
  },
  "kata-rs": {
    "aks-clh-snp": noIgvm,
    "metal-qemu-snp": supported(rs, ...rsLimits, rsIdBlock, cpuModel),
    "metal-qemu-tdx": supported(rs, ...rsLimits),
    "metal-qemu-snp-gpu": supported(rs, ...rsLimits, rsIdBlock, cpuModel, gpuUntried),
    "metal-qemu-tdx-gpu": supported(rs, ...rsLimits, gpuUntried),
    "metal-qemu-insecure": supported(rs, noTee, ...rsLimits),
    local: notHere("kata-rs", "local"),
  },
  none: {
    "aks-clh-snp": notHere("none", "aks-clh-snp"),
    "metal-qemu-snp": notHere("none", "metal-qemu-snp"),
    "metal-qemu-tdx": notHere("none", "metal-qemu-tdx"),
    "metal-qemu-snp-gpu": notHere("none", "metal-qemu-snp-gpu"),
    "metal-qemu-tdx-gpu": notHere("none", "metal-qemu-tdx-gpu"),
    "metal-qemu-insecure": notHere("none", "metal-qemu-insecure"),
    local: supported("", "Pods are ordinary containers of the node: no VM, no memory encryption, no attestation."),
  },
};

/** Throws `Refusal` if the flavour cannot serve the platform, or not in this version. */
export function supportedPair(
  platform: PlatformName,
  flavour: string,
  kataVersion: string,
): { flavour: FlavourName; limits: string[] } {
  const name = flavourNames.find((known) => known === flavour);
  if (name === undefined) {
    throw new Refusal(
      "unknown-flavour",
      `The flavour ${JSON.stringify(flavour)} is unknown. Known flavours: ${flavourNames.join(", ")}.`,
    );
  }
  const pair = pairs[name][platform];
  if (!pair.supported) {
    const others = flavourNames.filter((other) => pairs[other][platform].supported).join(", ");
    throw new Refusal(
      "unsupported-pair",
      `Flavour ${name} cannot serve the platform ${platform}: ${pair.reason}. Use a payload of flavour ${others}.`,
    );
  }
  if (pair.from !== "" && !isAtLeast(kataVersion, pair.from)) {
    throw new Refusal(
      "kata-too-old",
      `Kata ${kataVersion} is too old for ${platform} with flavour ${name}: ${pair.from} or later is needed. Lock a newer payload.`,
    );
  }
  return { flavour: name, limits: pair.limits };
}
