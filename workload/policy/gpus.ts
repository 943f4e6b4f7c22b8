import { deviceAnnotations } from "../../runtime/annotations.ts";
import { platforms } from "../../runtime/platforms.ts";
import { isAtLeast } from "../../runtime/version.ts";
import type { Container } from "../pod-template.ts";
import type { Problem } from "../problems.ts";
import type { PolicyInput } from "./pod-policy.ts";

/** What a policy knows of a container's devices that are passed through to the VM. */
export interface PinnedGpus {
  /** GPUs of the guest that the container gets, each by an annotation that Kata makes (container.go, createCDIAnnotation). */
  gpus: number;
  /** No other container gets them: not so of an init container, whose devices kubelet gives to the next ones. */
  keeps_gpus: boolean;
  /** The most devices that have no such annotation: NVSwitches, and all of the pod's in the sandbox of Kata 4.0. */
  further_devices: number;
}

export interface PodGpus {
  sandbox: PinnedGpus;
  containers: Record<string, PinnedGpus>;
}

/**
 * GPUs as NVIDIA's plugin for sandboxes has them (`nvidia.com/pgpu` and, without its alias, names of models): device files of
 * vfio, which Kata plugs into the VM before it starts, and hides from the container (vfio_mode guest-kernel).
 */
export function gpusOf({ runtime, template }: PolicyInput, problems: Problem[]): PodGpus {
  const found: PodGpus["containers"] = {};
  const keepers: string[] = [];
  const count = (container: Container, path: string, isInit: boolean) => {
    const { gpus, switches } = devicesOf(container, runtime, path, problems);
    const keeps = gpus > 0 && (!isInit || container.restartPolicy === "Always");
    if (keeps) keepers.push(path);
    found[container.name] = { gpus, keeps_gpus: keeps, further_devices: switches };
  };
  for (const [index, one] of (template.spec.initContainers ?? []).entries())
    count(one, `spec.initContainers[${index}]`, true);
  for (const [index, one] of template.spec.containers.entries()) count(one, `spec.containers[${index}]`, false);
  // runtime-rs numbers the GPUs of each container from 0 (cdi_devices/container_device.rs).
  if (runtime.flavour === "kata-rs" && keepers.length > 1)
    problems.push({
      field: `${keepers[1]}.resources.limits`,
      message: `asks for GPUs as ${keepers[0]} does, and runtime-rs would give both the same one: let one container have them, or use kata-go`,
    });
  for (const key of Object.keys(template.metadata?.annotations ?? {}))
    if (key.startsWith(deviceAnnotations))
      problems.push({
        field: `metadata.annotations["${key}"]`,
        message: "names devices of the node: ask for them by the limits of containers",
      });
  const all = Object.values(found).reduce((sum, { gpus, further_devices: more }) => sum + gpus + more, 0);
  // container.go, createDevices: since 4.1 the sandbox's own container is told of none.
  const inSandbox = runtime.flavour === "kata-go" && !isAtLeast(runtime.kataVersion, "4.1.0") ? all : 0;
  return { sandbox: { gpus: 0, keeps_gpus: false, further_devices: inSandbox }, containers: found };
}

function devicesOf(
  { resources }: Container,
  { platform, flavour }: PolicyInput["runtime"],
  path: string,
  problems: Problem[],
): { gpus: number; switches: number } {
  const hasGpus = platforms[platform].gpu;
  const found = { gpus: 0, switches: 0 };
  for (const [name, value] of Object.entries({ ...resources?.limits, ...resources?.requests })) {
    if (["cpu", "memory", "ephemeral-storage"].includes(name)) continue;
    const field = `${path}.resources.limits["${name}"]`;
    const amount = String(value);
    if (hasGpus && flavour === "contrast-go")
      problems.push({ field, message: "brings devices, which Contrast's Kata says otherwise than is known here" });
    else if (!hasGpus || !name.startsWith("nvidia.com/"))
      problems.push({ field, message: "brings devices or mounts that are not known here" });
    else if (!/^(0|[1-9][0-9]?)$/.test(amount))
      problems.push({ field, message: `is ${JSON.stringify(value)}, expected how many, from 0 to 99` });
    else found[/nvswitch/i.test(name) ? "switches" : "gpus"] += Number(amount);
  }
  return found;
}
