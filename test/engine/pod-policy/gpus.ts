/** A pod with GPUs on NVIDIA's plugin for sandboxes: what Kata makes of its devices, and what a host might ask for instead. */
import { posix } from "node:path";
import type { Json, OciSpec } from "./captured.ts";
import type { CreateContainer, Mutation } from "./mutations.ts";

/** As containerd writes it of what the plugin allocates (generic_device_plugin.go), with iommufd; without, /dev/vfio/NUMBER. */
export const vfioFile = (path: string, minor: number) => ({
  path,
  type: "c",
  major: 511,
  minor,
  fileMode: 0o600,
  uid: 0,
  gid: 0,
});

type Devices = NonNullable<OciSpec["linux"]["devices"]>;
export const isVfio = ({ path }: Devices[number]) => path.startsWith("/dev/vfio/");

/**
 * kata_agent.go, appendVfioDevice, and container.go, createCDIAnnotation; manager_inner.rs and container_device.rs. The
 * GPUs are at 0000:61:00.0, 0000:62:00.0 …, and each behind a root port of its own.
 */
export function passedThrough(devices: Devices): { devices: Json[]; annotations: Record<string, string> } {
  const found = devices.filter((device) => isVfio(device) && device.path !== "/dev/vfio/vfio");
  return {
    devices: found.map(({ path }, index) => ({
      id: posix.basename(path),
      type_: "vfio-pci-gk",
      vm_path: "",
      container_path: path,
      options: [`0000:6${index + 1}:00.0=0${index + 5}/00`],
    })),
    annotations: Object.fromEntries(
      found.map(({ path }, index) => [
        `cdi.k8s.io/vfio${posix.basename(path).replace("vfio", "")}`,
        `nvidia.com/gpu=${index}`,
      ]),
    ),
  };
}

const annotation = (key: string, value: string | undefined) => (create: CreateContainer) => {
  if (value === undefined) delete create.OCI.Annotations[key];
  else create.OCI.Annotations[key] = value;
};
const device = (changes: Record<string, Json>) => (create: CreateContainer) =>
  Object.assign(create.devices[0] ?? {}, changes);

/** Changes of the container `work` of the pod `model`, which has the GPUs of vfio1 and vfio3. */
export const gpuMutations: Mutation[] = [
  ["a GPU less", "gpus", annotation("cdi.k8s.io/vfio3", undefined)],
  ["a GPU more", "gpus", annotation("cdi.k8s.io/vfio4", "nvidia.com/gpu=2")],
  ["the same GPU twice", "gpus", annotation("cdi.k8s.io/vfio3", "nvidia.com/gpu=0")],
  ["all GPUs", "annotations", annotation("cdi.k8s.io/vfio3", "nvidia.com/gpu=all")],
  [
    "several GPUs by one annotation",
    "annotations",
    annotation("cdi.k8s.io/vfio3", "nvidia.com/gpu=1,nvidia.com/gpu=2"),
  ],
  ["another kind of device", "annotations", annotation("cdi.k8s.io/vfio3", "nvidia.com/pgpu=1")],
  ["another vendor's device", "annotations", annotation("cdi.k8s.io/vfio3", "example.com/gpu=1")],
  ["an annotation of CDI without a number", "annotations", annotation("cdi.k8s.io/vfio", "nvidia.com/gpu=2")],
  ["an annotation that is a GPU's number", "annotations", annotation("1", "nvidia.com/gpu=0")],
  ["a GPU as a device of the VM's vfio", "devices", device({ type_: "vfio-pci" })],
  ["a GPU with a file of the guest's", "gpus", device({ vm_path: "/dev/vda" })],
  ["a GPU's device at another file", "gpus", device({ container_path: "/dev/mem" })],
  ["a GPU's device under another number", "gpus", device({ id: "vfio3" })],
  ["a device that is no GPU's", "gpus", device({ id: "vfio9", container_path: "/dev/vfio/devices/vfio9" })],
  ["a device of no place in the VM", "gpus", device({ options: [] })],
  ["a device of a place that is none", "gpus", device({ options: ["0000:61:00.0=../../x"] })],
  ["the same device twice", "gpus", ({ devices }) => devices.push({ ...devices[0] })],
  ["a disk beside the GPUs", "devices", ({ devices }) => devices.push({ ...devices[0], type_: "scsi", options: [] })],
  [
    "a device file of vfio",
    "devices",
    ({ OCI }) =>
      OCI.Linux.Devices.push({ Path: "/dev/vfio/1", Type: "c", Major: 1, Minor: 1, FileMode: 384, UID: 0, GID: 0 }),
  ],
];
