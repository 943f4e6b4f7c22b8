import type { GuestSize } from "../runtime/kata-configuration.ts";
import type { Container, PodTemplate } from "./pod-template.ts";

const suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

/** A Kubernetes quantity in its base unit (cores, bytes); undefined for anything else. */
export function amount(quantity: string | number): number | undefined {
  const [, number, exponent = "", suffix = ""] =
    /^(\d+(?:\.\d*)?|\.\d+)(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i))?$/.exec(String(quantity)) ?? [];
  if (number === undefined) return undefined;
  const value = Number(number + exponent);
  if (suffix.endsWith("i")) return value * 1024 ** ("KMGTPE".indexOf(suffix.charAt(0)) + 1);
  return value * 1000 ** (suffixes.indexOf(suffix) - suffixes.indexOf(""));
}

/** By value: 500m is 0.5. */
export function isEqual(left: string | number, right: string | number): boolean {
  const [a, b] = [amount(left), amount(right)];
  return String(left) === String(right) || (a !== undefined && b !== undefined && Math.abs(a - b) <= 1e-12 * a);
}

export const mebibyte = 1 << 20;

/** What decides the size of a VM. */
export type Resource = "cpu" | "memory";

/** A pod's containers: all that counts for its size. */
export type Containers = Pick<PodTemplate["spec"], "containers" | "initContainers">;

/**
 * What the containers' own limits add up to, in cores or bytes: those of containers and sidecars together, or of the
 * largest init container with the sidecars before it (Kubernetes' component-helpers/resource, AggregateContainerLimits).
 */
export function limitOfContainers({ containers, initContainers = [] }: Containers, resource: Resource): number {
  const of = (container: Container) => amount(container.resources?.limits?.[resource] ?? 0) ?? 0;
  let sidecars = 0;
  let start = 0;
  for (const container of initContainers) {
    if (container.restartPolicy === "Always") sidecars += of(container);
    else start = Math.max(start, sidecars + of(container));
  }
  const running = containers.reduce((sum, container) => sum + of(container), sidecars);
  return Math.max(start, running);
}

/**
 * The guest with static_sandbox_resource_mgmt: what Kata has beyond the limits, and the pod's limit, which is its own
 * (PodLimits: it takes the place of the sum) or that of its containers. vCPUs are rounded up, memory down.
 */
export function guestSize(spec: PodTemplate["spec"], beyondLimits: GuestSize): GuestSize {
  const limit = (resource: Resource) => {
    const ofPod = spec.resources?.limits?.[resource];
    return ofPod === undefined ? limitOfContainers(spec, resource) : (amount(ofPod) ?? 0);
  };
  // Kubernetes rounds up to thousandths; sums of binary fractions must not count as more than they are.
  const thousandths = Math.ceil((beyondLimits.vcpus + limit("cpu")) * 1000 - 1e-6);
  return {
    vcpus: Math.ceil(thousandths / 1000),
    memoryMiB: beyondLimits.memoryMiB + Math.floor(limit("memory") / mebibyte),
  };
}
