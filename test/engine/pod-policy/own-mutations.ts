/** What a host might ask for instead, of one container of one of the example pods: beside `containerMutations`. */
import { gpuMutations } from "./gpus.ts";
import { annotation, type CreateContainer, env, type Mutation, mount, storage } from "./mutations.ts";

const server: Mutation[] = [
  ["a variable with another value", "env", env("MODE", "slow")],
  ["a secret with another value", "env", env("PASSWORD", "guess")],
  ["an address that is none", "env", env("POD_IP", "localhost")],
  ["another pod's name in a variable", "env", env("POD_NAME", "web-6986fd7b64-zzzzz")],
  ["another pod's UID in a variable", "env", env("POD_UID", "00000000-0000-4000-8000-000000000000")],
  ["root as user", "user", ({ OCI }) => Object.assign(OCI.Process.User, { UID: 0 })],
  ["root as group", "user", ({ OCI }) => Object.assign(OCI.Process.User, { GID: 0 })],
  ["a mount from the guest's root", "mounts", mount("/etc/settings", (one) => Object.assign(one, { source: "/" }))],
  [
    "the image in place of a disk",
    "disks",
    (create) => mount("/work", (one) => Object.assign(one, { source: create.OCI.Root.Path }))(create),
  ],
  [
    "a writable ConfigMap",
    "mounts",
    mount("/etc/settings", (one) => Object.assign(one, { options: ["rbind", "rprivate", "rw"] })),
  ],
  ["a disk that is not encrypted", "storages", storage("scsi", (one) => one.driver_options.shift())],
  ["a disk with files of the host", "storages", storage("scsi", (one) => one.driver_options.pop())],
  [
    "a disk elsewhere in the guest",
    "storages",
    storage("scsi", (one) => Object.assign(one, { mount_point: "/run/kata-containers/sandbox/shm" })),
  ],
  ["another file system on a disk", "storages", storage("scsi", (one) => Object.assign(one, { fstype: "iso9660" }))],
  ["a device file as disk", "storages", storage("scsi", (one) => Object.assign(one, { source: "/dev/vda" }))],
  ["memory that is a bind mount", "storages", storage("ephemeral", (one) => Object.assign(one, { fstype: "bind" }))],
  ["memory with options", "storages", storage("ephemeral", (one) => one.options.push("mode=0777"))],
  ["another container's name", "args", annotation("io.kubernetes.cri.container-name", "log")],
];

const device = (changes: object) => (create: CreateContainer) => Object.assign(create.devices[0] ?? {}, changes);
const deviceFile = (changes: object) => (create: CreateContainer) =>
  Object.assign(create.OCI.Linux.Devices[0] ?? {}, changes);

/** `db` has a claim in block mode. */
const db: Mutation[] = [
  ["no disk", "devices", ({ devices }) => devices.pop()],
  ["no file of the disk", "devices", ({ OCI }) => OCI.Linux.Devices.pop()],
  ["two disks", "devices", ({ devices }) => devices.push({ ...devices[0], id: "0:7" })],
  ["two files of the disk", "devices", ({ OCI }) => OCI.Linux.Devices.push({ ...OCI.Linux.Devices[0] })],
  ["the disk at another file", "devices", device({ container_path: "/dev/vda" })],
  ["another file of the disk", "devices", deviceFile({ Path: "/dev/vda" })],
  ["a file of characters", "devices", deviceFile({ Type: "c" })],
  ["a disk of another bus", "devices", device({ type_: "blk" })],
  ["a disk of persistent memory", "devices", device({ type_: "nvdimm" })],
  ["a disk that has no address", "devices", device({ id: "/dev/vda" })],
  ["a disk with a file of the guest's", "devices", device({ vm_path: "/dev/vda" })],
  ["a disk with options", "devices", device({ options: ["0000:61:00.0=05/00"] })],
  ["a file with a field that no known Kata has", "devices", deviceFile({ Access: "rwm" })],
  ["a disk that is mounted", "storages", ({ storages }) => storages.push({ ...disk, source: "0:0" })],
];
const disk = { ...{ driver: "scsi", driver_options: [], options: [] }, fstype: "ext4", mount_point: "/run/x" };

/** `batch` is an indexed Job, and does not want to know of services. */
const work: Mutation[] = [
  ["an index that is no number", "env", env("JOB_COMPLETION_INDEX", "$(reboot)")],
  ["a service's address", "env", env("WEB_SERVICE_HOST", "10.96.0.20")],
  ["another container's name", "args", annotation("io.kubernetes.cri.container-name", "helper")],
];

const helper: Mutation[] = [
  ["the user of another container", "user", ({ OCI }) => Object.assign(OCI.Process.User, { UID: 0 })],
  ["a GPU for a container that asks for none", "annotations", annotation("cdi.k8s.io/vfio1", "nvidia.com/gpu=0")],
  ["another container's name", "args", annotation("io.kubernetes.cri.container-name", "work")],
];

/** Containers of the example pods, and what is changed in them alone. */
export const ownMutations = [
  ["web", "prepare", []],
  ["web", "server", server],
  ["web", "log", []],
  ["db", "db", db],
  ["batch", "work", work],
  ["batch", "helper", helper],
  ["model", "work", [...work, ...gpuMutations]],
  ["model", "helper", helper],
] as const satisfies [string, string, Mutation[]][];
