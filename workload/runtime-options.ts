import { idBlockAnnotations } from "../measure/id-block.ts";
import { valuesOf } from "../measure/launch-values.ts";
import type { MeasuredRuntime } from "../measure/runtime.ts";
import { hypervisorAnnotations } from "../runtime/annotations.ts";
import { readsRegistryInInitdata } from "../runtime/derive.ts";
import type { GuestRegistry } from "../runtime/guest-registry.ts";
import { platforms } from "../runtime/platforms.ts";
import type { InstallSpec } from "../runtime/spec.ts";
import { isAtLeast } from "../runtime/version.ts";
import { type Initdata, withGuestRegistry, withoutGuestRegistry } from "./initdata.ts";
import type { LayerRoot, WorkloadOptions } from "./template.ts";
import type { GuestFacts } from "./traps.ts";

/** What is said of one workload, beside the runtime. */
export interface Given extends Pick<WorkloadOptions, "acknowledged" | "classNames" | "namespace"> {
  initdata: Initdata;
  guestRegistry?: GuestRegistry | undefined;
  distribution?: InstallSpec["distribution"]["name"] | undefined;
  layers?: Record<string, readonly LayerRoot[]> | undefined;
}

/** What `prepareWorkload` has to know of a runtime. */
export function workloadOptions(runtime: MeasuredRuntime, given: Given): WorkloadOptions {
  const { handler, containerd } = runtime.spec;
  const hasIdBlocks = containerd.podAnnotations.some((name) => name.startsWith(`${hypervisorAnnotations}snp_id_block`));
  const { guestRegistry, distribution, layers, initdata, ...rest } = given;
  return {
    ...rest,
    handler,
    guest: guestFacts(runtime, distribution),
    initdata:
      guestRegistry !== undefined && readsRegistryInInitdata(runtime)
        ? withGuestRegistry(withoutGuestRegistry(initdata, guestRegistry), guestRegistry)
        : initdata,
    beyondLimits: runtime.beyondLimits,
    ...(platforms[runtime.platform].snapshotter !== undefined && { layers: layers ?? {} }),
    ...(hasIdBlocks && {
      annotationsFor: (vcpus: number) => idBlockAnnotations(valuesOf(runtime, [vcpus])?.snp ?? []),
    }),
  };
}

/** The kubelet's directory is another one there, which runtime-rs does not know. */
const movedKubelets: readonly string[] = ["k0s", "microk8s"];

function guestFacts({ platform, manifest, spec }: MeasuredRuntime, distribution = ""): GuestFacts {
  const { flavour, kataVersion } = manifest;
  const { guestPull } = platforms[platform].host;
  return {
    pullsImages: guestPull,
    registryLogins: flavour === "contrast-go" ? "node" : "initdata",
    emptyDirs: flavour.startsWith("kata-") ? "encrypted-disk" : "memory",
    // Kata 3.2 copies volumes once, when a container starts (fs_share_linux.go); later ones watch them.
    renewsProjected:
      flavour === "none" ||
      (isAtLeast(kataVersion, "3.30.0") && !(flavour === "kata-rs" && movedKubelets.includes(distribution))),
    podAnnotations: spec.containerd.podAnnotations,
    // govmm.MaxVCPUs; MAX_QEMU_VCPUS of runtime-rs.
    mostVcpus: flavour === "kata-rs" ? 256 : 240,
  };
}
