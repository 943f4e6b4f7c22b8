import type { MeasuredRuntime } from "../measure/runtime.ts";
import { flavourNames } from "../runtime/flavours.ts";
import { platforms } from "../runtime/platforms.ts";
import { Refusal } from "../runtime/refusal.ts";
import type { KnownImage } from "./manifests.ts";
import type { Surroundings, Workload } from "./objects.ts";
import type { PodTemplate } from "./pod-template.ts";
import { requireCovered } from "./policy/known.ts";
import { type PolicyInput, type PolicyOptIns, podPolicy } from "./policy/pod-policy.ts";

/** First line of a policy that is made anew at each run: nobody's own work is in it. */
const mark = "# Made by contrast-runtime workload from the pod. Changes here are lost: give a policy by --initdata.\n";

export const isMadePolicy = (rego: string): boolean => rego.startsWith(mark);

/** There is no guest whose policy it could be: made all the same, so that what is refused elsewhere is refused there. */
const inPlaceOfLocal: PolicyInput["runtime"] = {
  platform: "metal-qemu-snp",
  flavour: "kata-go",
  kataVersion: "4.1.0",
  guestPull: true,
};

function policyRuntime({ platform, manifest: { flavour, kataVersion } }: MeasuredRuntime): PolicyInput["runtime"] {
  const name = flavourNames.find((each) => each === flavour);
  if (name === undefined) throw new Refusal("unknown-flavour", `The flavour ${flavour} is unknown.`);
  if (name === "none") return inPlaceOfLocal;
  return { platform, flavour: name, kataVersion, guestPull: platforms[platform].host.guestPull };
}

/** Whether policies are made for a runtime's guests. */
export function isCovered(runtime: MeasuredRuntime): boolean {
  try {
    requireCovered(policyRuntime(runtime));
    return true;
  } catch (error) {
    if (error instanceof Refusal) return false;
    throw error;
  }
}

/** @throws Refusal for a runtime that is not covered, and for what cannot be pinned */
export function makePolicy(
  template: PodTemplate,
  { kind, name, namespace, claims }: Pick<Workload, "kind" | "name" | "namespace" | "claims">,
  known: {
    surroundings: Surroundings;
    runtime: MeasuredRuntime;
    images: readonly KnownImage[];
    allow?: PolicyOptIns | undefined;
  },
): { rego: string; notes: string[] } {
  const { runtime, surroundings, images, allow } = known;
  const ofNamespace = <Value>(all: Record<string, Value>): Record<string, Value> =>
    Object.fromEntries(
      Object.entries(all).flatMap(([key, value]) =>
        key.startsWith(`${namespace}/`) ? [[key.slice(namespace.length + 1), value]] : [],
      ),
    );
  const { rego } = podPolicy({
    runtime: policyRuntime(runtime),
    namespace,
    owner: { kind, name },
    template,
    images: Object.fromEntries(images.map(({ pinned, image }) => [pinned, image])),
    configMaps: ofNamespace(surroundings.configMaps),
    secrets: ofNamespace(surroundings.secrets),
    claims: { ...ofNamespace(surroundings.claims), ...claims },
    ...(allow && { allow }),
  });
  return {
    rego: `${mark}${rego}`,
    notes:
      runtime.manifest.flavour === "none"
        ? ["has a policy as for a guest with a TEE; on the platform local nothing enforces it."]
        : [],
  };
}
