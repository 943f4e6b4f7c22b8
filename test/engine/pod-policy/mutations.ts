import type { Json, KataRequest } from "./captured.ts";

type Members = { [key: string]: Json };

/** What a host might ask for instead, of a container: the request, what is changed, and the condition that it breaks. */
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
      Terminal: boolean;
      NoNewPrivileges: boolean;
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

export const env = (name: string, value: string | undefined) => (create: CreateContainer) => {
  const { Process } = create.OCI;
  Process.Env = Process.Env.filter((variable) => !variable.startsWith(`${name}=`));
  if (value !== undefined) Process.Env.push(`${name}=${value}`);
};
export const annotation = (key: string, value: string) => (create: CreateContainer) => {
  create.OCI.Annotations[key] = value;
};
export const mount = (destination: string, change: (found: CreateContainer["OCI"]["Mounts"][number]) => unknown) => {
  return (create: CreateContainer) => {
    const found = create.OCI.Mounts.find((one) => one.destination === destination);
    if (found === undefined) throw new Error(`no mount at ${destination}`);
    change(found);
  };
};
export const storage = (driver: string, change: (found: CreateContainer["storages"][number]) => unknown) => {
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
/** One that is mounted at a place of its own. */
const storageOf = (driver: string, given: Members) => ({
  ...{ driver, driver_options: [], options: [], mount_point: "/run/x", fs_group: null, shared: false },
  ...given,
});
const flip = <Key extends string>(of: Record<Key, Json>, key: Key) => Object.assign(of, { [key]: of[key] !== true });

/** Changes that make sense in every container of every pod. */
export const containerMutations: Mutation[] = [
  ["another argument", "args", ({ OCI }) => OCI.Process.Args.push(`${OCI.Process.Args.pop()}x`)],
  ["a further argument", "args", ({ OCI }) => OCI.Process.Args.push("-v")],
  ["an argument less", "args", ({ OCI }) => OCI.Process.Args.pop()],
  ["another program", "args", ({ OCI }) => Object.assign(OCI.Process, { Args: ["/bin/sh"] })],
  ["no program", "args", ({ OCI }) => Object.assign(OCI.Process, { Args: [] })],
  ["LD_PRELOAD", "env", env("LD_PRELOAD", "/memory/x.so")],
  ["another PATH", "env", env("PATH", "/memory")],
  ["a variable that is missing", "env", env("PATH", undefined)],
  ["a variable twice", "env", ({ OCI }) => OCI.Process.Env.push("PATH=/memory")],
  ["a service that is no address", "env", env("WEB_SERVICE_HOST", "attacker.example")],
  ["a service that is a command", "env", env("WEB_PORT", "$(reboot)")],
  ["a service with a second line", "env", env("WEB_SERVICE_PORT", "80\nLD_PRELOAD=/x")],
  ["a text without an equals sign", "env", ({ OCI }) => OCI.Process.Env.push("DEBUG")],
  ["another directory", "cwd", ({ OCI }) => Object.assign(OCI.Process, { Cwd: "/memory" })],
  ["another user", "user", ({ OCI }) => OCI.Process.User.UID++],
  ["another group", "user", ({ OCI }) => OCI.Process.User.GID++],
  ["a group less", "user", ({ OCI }) => OCI.Process.User.AdditionalGids.pop()],
  ["a further group", "user", ({ OCI }) => OCI.Process.User.AdditionalGids.push(6)],
  ["a user by name", "user", ({ OCI }) => Object.assign(OCI.Process.User, { Username: "root" })],
  ["a capability more", "capabilities", ({ OCI }) => OCI.Process.Capabilities.Bounding?.push("CAP_SYS_ADMIN")],
  ["a capability less", "capabilities", ({ OCI }) => OCI.Process.Capabilities.Bounding?.pop()],
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
  ["new privileges, or none", "process", ({ OCI }) => flip(OCI.Process, "NoNewPrivileges")],
  ["a terminal, or none", "process", ({ OCI }) => flip(OCI.Process, "Terminal")],
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
  ["a root that is writable, or not", "root", ({ OCI }) => flip(OCI.Root, "Readonly")],
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
  ["a mount that hides others", "mounts", ({ OCI }) => OCI.Mounts.reverse()],
  ["a mount elsewhere", "mounts", mount("/etc/hosts", (one) => Object.assign(one, { destination: "/bin" }))],
  ["a propagated mount", "mounts", mount("/etc/hosts", (one) => one.options.push("rshared"))],
  ["a writable /sys", "mounts", mount("/sys", (one) => Object.assign(one, { options: ["nosuid", "noexec", "nodev"] }))],
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
  ["a disk more", "storages", ({ storages }) => storages.push(storageOf("scsi", { source: "0:9", fstype: "ext4" }))],
  [
    "memory more",
    "storages",
    ({ storages }) => storages.push(storageOf("ephemeral", { source: "tmpfs", fstype: "tmpfs" })),
  ],
  ["no image", "storages", ({ storages }) => storages.shift()],
  [
    "a shared directory of the host",
    "storages",
    ({ storages }) => storages.push(storageOf("virtio-fs", { source: "kataShared", fstype: "virtiofs" })),
  ],
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
  ["a network of its own", "namespaces", ({ OCI }) => OCI.Linux.Namespaces.push({ Type: "network", Path: "" })],
  ["process IDs that are shared, or not", "namespaces", (create) => flip(create, "sandbox_pidns")],
  [
    "a namespace of the guest",
    "namespaces",
    ({ OCI }) =>
      Object.assign(OCI.Linux, { Namespaces: OCI.Linux.Namespaces.map((one) => ({ ...one, Path: "/proc/1/ns/mnt" })) }),
  ],
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
    "a hidden file of the container, behind its process",
    "paths",
    ({ OCI }) => OCI.Linux.MaskedPaths.push("/proc/self/root/etc/app.conf"),
  ],
  [
    "a read-only directory of the container, behind its process",
    "paths",
    ({ OCI }) => OCI.Linux.ReadonlyPaths.push("/proc/./1/cwd"),
  ],
  [
    "a cgroup outside of the container's",
    "cgroup",
    ({ OCI }) => Object.assign(OCI.Linux, { CgroupsPath: "/../../system.slice" }),
  ],
  ["the guest's own cgroup", "cgroup", ({ OCI }) => Object.assign(OCI.Linux, { CgroupsPath: "/" })],
  [
    "another container's cgroup",
    "cgroup",
    (create) =>
      Object.assign(create.OCI.Linux, {
        CgroupsPath: String(create.OCI.Linux.CgroupsPath).replace(create.container_id, other),
      }),
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
  ["a device of CDI", "annotations", annotation("cdi.k8s.io/other", "nvidia.com/gpu=0")],
  ["an annotation of the host's choice", "annotations", annotation("example.test/other", "1")],
  ["another image's name", "annotations", annotation("io.kubernetes.cri.image-name", `server@sha256:${other}`)],
  ["another namespace", "pod", annotation("io.kubernetes.cri.sandbox-namespace", "default")],
  ["another object's pod", "pod", annotation("io.kubernetes.cri.sandbox-name", "other-6986fd7b64-cvwfh")],
  [
    "another pod of the same object",
    "pod",
    (create) => {
      const name = create.OCI.Annotations["io.kubernetes.cri.sandbox-name"] ?? "";
      annotation(
        "io.kubernetes.cri.sandbox-name",
        name.replace(/.$/, (last) => (last === "4" ? "5" : "4")),
      )(create);
    },
  ],
  ["another pod's UID", "pod", annotation("io.kubernetes.cri.sandbox-uid", "00000000-0000-4000-8000-000000000000")],
  ["another sandbox", "sandbox", annotation("io.kubernetes.cri.sandbox-id", other)],
  ["a container that the pod does not have", "container", annotation("io.kubernetes.cri.container-name", "extra")],
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
