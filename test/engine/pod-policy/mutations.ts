import type { Json, KataRequest } from "./captured.ts";

type Members = { [key: string]: Json };

/** What a host might ask for instead, of the pod `web`: the request, what is changed, and the condition that it breaks. */
export type Mutation = [what: string, broken: string, change: (create: CreateContainer) => unknown];

/** Of a CreateContainerRequest, as far as the changes go. */
export interface CreateContainer {
  container_id: string;
  exec_id: string;
  sandbox_pidns: boolean;
  stdin_port: number;
  stdout_port: number;
  string_user: Json;
  shared_mounts: Members[];
  devices: Members[];
  storages: (Members & { driver_options: string[]; options: string[] })[];
  OCI: Members & {
    Version: string;
    Hostname: string;
    Hooks: Json;
    Annotations: Record<string, string>;
    Root: { Path: string; Readonly: boolean };
    Mounts: { destination: string; source: string; type_: string; options: string[] }[];
    Process: Members & {
      Args: string[];
      Env: string[];
      Capabilities: Record<string, string[]>;
      User: { UID: number; GID: number; AdditionalGids: number[]; Username: string };
    };
    Linux: Members & {
      Namespaces: { Type: string; Path: string }[];
      Devices: Members[];
      Resources: Members;
      Sysctl: Record<string, string>;
      MaskedPaths: string[];
      ReadonlyPaths: string[];
    };
  };
}

const env = (name: string, value: string | undefined) => (create: CreateContainer) => {
  const { Process } = create.OCI;
  Process.Env = Process.Env.filter((variable) => !variable.startsWith(`${name}=`));
  if (value !== undefined) Process.Env.push(`${name}=${value}`);
};
const annotation = (key: string, value: string) => (create: CreateContainer) => {
  create.OCI.Annotations[key] = value;
};
const mount = (destination: string, change: (found: CreateContainer["OCI"]["Mounts"][number]) => unknown) => {
  return (create: CreateContainer) => {
    const found = create.OCI.Mounts.find((one) => one.destination === destination);
    if (found === undefined) throw new Error(`no mount at ${destination}`);
    change(found);
  };
};
const storage = (driver: string, change: (found: CreateContainer["storages"][number]) => unknown) => {
  return (create: CreateContainer) => {
    const found = create.storages.find((one) => one.driver === driver);
    if (found === undefined) throw new Error(`no storage of ${driver}`);
    change(found);
  };
};
const bind = {
  destination: "/extra",
  source: "/run/kata-containers/shared/containers/x",
  type_: "bind",
  options: ["rbind"],
};
const other = "f".repeat(64);

/** Changes of the container `server`. */
export const serverMutations: Mutation[] = [
  ["another argument", "args", ({ OCI }) => Object.assign(OCI.Process.Args, { 3: "8082" })],
  ["a further argument", "args", ({ OCI }) => OCI.Process.Args.push("-v")],
  ["an argument less", "args", ({ OCI }) => OCI.Process.Args.pop()],
  ["another program", "args", ({ OCI }) => Object.assign(OCI.Process, { Args: ["/bin/sh"] })],
  ["no program", "args", ({ OCI }) => Object.assign(OCI.Process, { Args: [] })],
  ["a variable with another value", "env", env("MODE", "slow")],
  ["a secret with another value", "env", env("PASSWORD", "guess")],
  ["a variable that is missing", "env", env("PASSWORD", undefined)],
  ["a variable twice", "env", ({ OCI }) => OCI.Process.Env.push("MODE=slow")],
  ["LD_PRELOAD", "env", env("LD_PRELOAD", "/memory/x.so")],
  ["another PATH", "env", env("PATH", "/memory")],
  ["a service that is no address", "env", env("WEB_SERVICE_HOST", "attacker.example")],
  ["a service that is a command", "env", env("WEB_PORT", "$(reboot)")],
  ["a service with a second line", "env", env("WEB_SERVICE_PORT", "80\nLD_PRELOAD=/x")],
  ["an address that is none", "env", env("POD_IP", "localhost")],
  ["another pod's name in a variable", "env", env("POD_NAME", "web-6986fd7b64-zzzzz")],
  ["another pod's UID in a variable", "env", env("POD_UID", "00000000-0000-4000-8000-000000000000")],
  ["a text without an equals sign", "env", ({ OCI }) => OCI.Process.Env.push("DEBUG")],
  ["another directory", "cwd", ({ OCI }) => Object.assign(OCI.Process, { Cwd: "/memory" })],
  ["root as user", "user", ({ OCI }) => Object.assign(OCI.Process.User, { UID: 0 })],
  ["root as group", "user", ({ OCI }) => Object.assign(OCI.Process.User, { GID: 0 })],
  ["a further group", "user", ({ OCI }) => OCI.Process.User.AdditionalGids.push(0)],
  ["a group less", "user", ({ OCI }) => OCI.Process.User.AdditionalGids.pop()],
  ["a user by name", "user", ({ OCI }) => Object.assign(OCI.Process.User, { Username: "root" })],
  ["a capability more", "capabilities", ({ OCI }) => OCI.Process.Capabilities.Bounding?.push("CAP_SYS_ADMIN")],
  [
    "an effective capability more",
    "capabilities",
    ({ OCI }) => OCI.Process.Capabilities.Effective?.push("CAP_SYS_PTRACE"),
  ],
  [
    "an ambient capability",
    "capabilities",
    ({ OCI }) => OCI.Process.Capabilities.Ambient?.push("CAP_NET_BIND_SERVICE"),
  ],
  ["an inheritable capability", "capabilities", ({ OCI }) => OCI.Process.Capabilities.Inheritable?.push("CAP_CHOWN")],
  ["new privileges", "process", ({ OCI }) => Object.assign(OCI.Process, { NoNewPrivileges: false })],
  ["a terminal", "process", ({ OCI }) => Object.assign(OCI.Process, { Terminal: true })],
  [
    "a limit of resources",
    "process",
    ({ OCI }) => Object.assign(OCI.Process, { Rlimits: [{ Type: "RLIMIT_CORE", Hard: 1, Soft: 1 }] }),
  ],
  ["another AppArmor profile", "process", ({ OCI }) => Object.assign(OCI.Process, { ApparmorProfile: "unconfined" })],
  [
    "an SELinux label",
    "process",
    ({ OCI }) => Object.assign(OCI.Process, { SelinuxLabel: "system_u:system_r:spc_t:s0" }),
  ],
  ["a field that no known Kata has", "process", ({ OCI }) => Object.assign(OCI.Process, { Scheduler: null })],
  ["a writable root", "root", ({ OCI }) => Object.assign(OCI.Root, { Readonly: false })],
  [
    "another container's root",
    "root",
    ({ OCI }) => Object.assign(OCI.Root, { Path: `/run/kata-containers/${other}/rootfs` }),
  ],
  ["the guest's own root", "root", ({ OCI }) => Object.assign(OCI.Root, { Path: "/" })],
  ["a host name", "hostname", ({ OCI }) => Object.assign(OCI, { Hostname: "db" })],
  ["a mount more", "mounts", ({ OCI }) => OCI.Mounts.push(structuredClone(bind))],
  ["a mount less", "mounts", ({ OCI }) => OCI.Mounts.pop()],
  ["a mount twice", "mounts", ({ OCI }) => Object.assign(OCI.Mounts, { 7: structuredClone(OCI.Mounts[6] ?? bind) })],
  ["a mount from the guest's root", "mounts", mount("/etc/settings", (one) => Object.assign(one, { source: "/" }))],
  [
    "a mount from the guest's keys",
    "mounts",
    mount("/etc/hosts", (one) => Object.assign(one, { source: "/run/confidential-containers" })),
  ],
  [
    "a copied file of another container",
    "mounts",
    mount("/etc/hosts", (one) => Object.assign(one, { source: one.source.replace(/[0-9a-f]{64}/, other) })),
  ],
  [
    "a directory in place of a file",
    "mounts",
    mount("/etc/hosts", (one) => Object.assign(one, { source: `${one.source}/..` })),
  ],
  [
    "a disk in place of the copied file",
    "mounts",
    mount("/etc/hosts", (one) => Object.assign(one, { source: "/run/kata-containers/sandbox/storage/MDox" })),
  ],
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
  [
    "a propagated mount",
    "mounts",
    mount("/work", (one) => Object.assign(one, { options: ["rbind", "rshared", "rw"] })),
  ],
  ["a mount elsewhere", "mounts", mount("/work", (one) => Object.assign(one, { destination: "/bin" }))],
  ["another file system", "mounts", mount("/proc", (one) => Object.assign(one, { type_: "tmpfs" }))],
  [
    "the sandbox's files as shared memory",
    "mounts",
    mount("/dev/shm", (one) => Object.assign(one, { source: "/run/kata-containers/sandbox" })),
  ],
  [
    "another image",
    "storages",
    storage("image_guest_pull", (one) => Object.assign(one, { source: `attacker.example/x@sha256:${other}` })),
  ],
  [
    "an image by tag",
    "storages",
    storage("image_guest_pull", (one) => Object.assign(one, { source: "server:latest" })),
  ],
  ["the pause image", "storages", storage("image_guest_pull", (one) => Object.assign(one, { source: "pause" }))],
  [
    "metadata of a sandbox",
    "storages",
    storage("image_guest_pull", (one) =>
      Object.assign(one, {
        driver_options: one.driver_options.map((text) =>
          text
            .replace('"container-type":"container"', '"x":"y"')
            .replace('"io.kubernetes.cri.container-type":"container"', '"io.kubernetes.cri.container-type":"sandbox"'),
        ),
      }),
    ),
  ],
  [
    "metadata of CRI-O",
    "storages",
    storage("image_guest_pull", (one) =>
      Object.assign(one, {
        driver_options: one.driver_options.map((text) =>
          text.replace('{"metadata":{', '{"metadata":{"io.kubernetes.cri-o.ContainerType":"sandbox",'),
        ),
      }),
    ),
  ],
  [
    "two images",
    "storages",
    ({ storages }) =>
      storages.push({
        ...structuredClone(storages[0] ?? { driver_options: [], options: [] }),
        mount_point: "/run/kata-containers/x/rootfs",
      }),
  ],
  [
    "an image elsewhere in the guest",
    "storages",
    storage("image_guest_pull", (one) => Object.assign(one, { mount_point: "/etc" })),
  ],
  ["no image", "storages", ({ storages }) => storages.shift()],
  ["a disk that is not encrypted", "storages", storage("scsi", (one) => one.driver_options.shift())],
  ["a disk with files of the host", "storages", storage("scsi", (one) => one.driver_options.pop())],
  [
    "a disk elsewhere in the guest",
    "storages",
    storage("scsi", (one) => Object.assign(one, { mount_point: "/run/kata-containers/sandbox/shm" })),
  ],
  ["another file system on a disk", "storages", storage("scsi", (one) => Object.assign(one, { fstype: "iso9660" }))],
  ["a device file as disk", "storages", storage("scsi", (one) => Object.assign(one, { source: "/dev/vda" }))],
  [
    "a shared directory of the host",
    "storages",
    ({ storages }) =>
      storages.push({
        driver: "virtio-fs",
        driver_options: [],
        source: "kataShared",
        fstype: "virtiofs",
        options: [],
        mount_point: "/run/x",
        fs_group: null,
        shared: false,
      }),
  ],
  ["memory that is a bind mount", "storages", storage("ephemeral", (one) => Object.assign(one, { fstype: "bind" }))],
  ["memory with options", "storages", storage("ephemeral", (one) => one.options.push("mode=0777"))],
  [
    "a device",
    "devices",
    ({ devices }) => devices.push({ id: "0:9", type_: "scsi", vm_path: "", container_path: "/dev/x", options: [] }),
  ],
  [
    "a device file",
    "devices",
    ({ OCI }) =>
      OCI.Linux.Devices.push({ Path: "/dev/mem", Type: "c", Major: 1, Minor: 1, FileMode: 438, UID: 0, GID: 0 }),
  ],
  ["a namespace less", "namespaces", ({ OCI }) => OCI.Linux.Namespaces.pop()],
  [
    "a namespace of the guest",
    "namespaces",
    ({ OCI }) =>
      Object.assign(OCI.Linux, { Namespaces: OCI.Linux.Namespaces.map((one) => ({ ...one, Path: "/proc/1/ns/mnt" })) }),
  ],
  ["shared process IDs", "namespaces", (create) => Object.assign(create, { sandbox_pidns: true })],
  [
    "a kernel parameter",
    "sysctl",
    ({ OCI }) => Object.assign(OCI.Linux.Sysctl, { "kernel.core_pattern": "|/memory/x" }),
  ],
  ["a path of the kernel that is not hidden", "paths", ({ OCI }) => Object.assign(OCI.Linux, { MaskedPaths: [] })],
  [
    "a writable /proc/sys",
    "paths",
    ({ OCI }) =>
      Object.assign(OCI.Linux, { ReadonlyPaths: OCI.Linux.ReadonlyPaths.filter((path) => path !== "/proc/sys") }),
  ],
  ["a hidden file of the container", "paths", ({ OCI }) => OCI.Linux.MaskedPaths.push("/etc/app.conf")],
  [
    "a cgroup outside of the container's",
    "cgroup",
    ({ OCI }) => Object.assign(OCI.Linux, { CgroupsPath: "/../../system.slice" }),
  ],
  [
    "access to devices",
    "resources",
    ({ OCI }) =>
      Object.assign(OCI.Linux.Resources, {
        Devices: [{ Allow: true, Type: "a", Major: -1, Minor: -1, Access: "rwm" }],
      }),
  ],
  [
    "mapped users",
    "linux",
    ({ OCI }) => Object.assign(OCI.Linux, { UIDMappings: [{ HostID: 0, ContainerID: 0, Size: 1 }] }),
  ],
  [
    "a seccomp profile",
    "linux",
    ({ OCI }) => Object.assign(OCI.Linux, { Seccomp: { DefaultAction: "SCMP_ACT_ALLOW" } }),
  ],
  ["a propagated root", "linux", ({ OCI }) => Object.assign(OCI.Linux, { RootfsPropagation: "shared" })],
  [
    "hooks",
    "oci",
    ({ OCI }) => Object.assign(OCI, { Hooks: { Prestart: [{ Path: "/bin/sh", Args: [], Env: [], Timeout: 0 }] } }),
  ],
  ["another version of the specification", "oci", ({ OCI }) => Object.assign(OCI, { Version: "2.0.0" })],
  ["a device of CDI", "annotations", annotation("cdi.k8s.io/vfio0", "nvidia.com/gpu=0")],
  ["an annotation of the host's choice", "annotations", annotation("example.test/other", "1")],
  ["another image's name", "annotations", annotation("io.kubernetes.cri.image-name", `server@sha256:${other}`)],
  ["another namespace", "pod", annotation("io.kubernetes.cri.sandbox-namespace", "default")],
  ["another Deployment's pod", "pod", annotation("io.kubernetes.cri.sandbox-name", "db-6986fd7b64-cvwfh")],
  ["another pod of the Deployment", "pod", annotation("io.kubernetes.cri.sandbox-name", "web-6986fd7b64-zzzzz")],
  ["another pod's UID", "pod", annotation("io.kubernetes.cri.sandbox-uid", "00000000-0000-4000-8000-000000000000")],
  ["another sandbox", "sandbox", annotation("io.kubernetes.cri.sandbox-id", other)],
  ["a container that the pod does not have", "container", annotation("io.kubernetes.cri.container-name", "extra")],
  ["another container's name", "args", annotation("io.kubernetes.cri.container-name", "log")],
  ["the sandbox's type", "sandbox", annotation("io.kubernetes.cri.container-type", "sandbox")],
  ["another id of the process", "exec_id", (create) => Object.assign(create, { exec_id: "../x" })],
  ["an id that is a path", "container_id", (create) => Object.assign(create, { container_id: "../../etc" })],
  [
    "a user of the image's",
    "request",
    (create) => Object.assign(create, { string_user: { uid: "root", gid: "", additionalGids: [] } }),
  ],
  ["a stream of its own", "request", (create) => Object.assign(create, { stdin_port: 1024 })],
  [
    "a mount that is shared with another container",
    "request",
    (create) => create.shared_mounts.push({ name: "x", src_ctr: "a", src_path: "/", dst_ctr: "b", dst_path: "/" }),
  ],
];

/** The same request, changed. */
export function changed(request: KataRequest, change: (create: CreateContainer) => unknown): KataRequest {
  const copy = structuredClone(request);
  const { input } = copy;
  if (!isCreate(input)) throw new Error(`not a CreateContainerRequest: ${request.kind}`);
  change(input);
  return copy;
}
const isCreate = (input: unknown): input is CreateContainer =>
  typeof input === "object" && input !== null && "OCI" in input;
