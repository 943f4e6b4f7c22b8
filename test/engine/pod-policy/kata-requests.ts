/**
 * What Kata's runtimes ask the agent for, from the OCI specifications that containerd writes. test/campaigns/kata-conversion.ts
 * compares it with what the Go runtime's own code makes of the same specifications. Read from kata-containers 4.1.0:
 * Go: src/runtime/virtcontainers/{kata_agent,container,fs_share_linux}.go, pkg/katautils/create.go, pkg/oci/utils.go;
 * Rust: src/runtime-rs/crates/{resource,runtimes/virt_container}. As the product configures them: shared_fs = none,
 * emptydir_mode = block-encrypted, force_guest_pull, virtio-scsi, seccomp and SELinux off in the guest.
 * Names of fields are those of the agent's JSON (serde of rust-protobuf): CamelCase as in oci.proto, `type` is `type_`.
 */
import { posix } from "node:path";
import type { Captured, Json, KataRequest, OciSpec, Source } from "./captured.ts";
import { isVfio, passedThrough } from "./gpus.ts";

export type RuntimeFlavour = "kata-go" | "kata-rs" | "contrast-go";

const shared = "/run/kata-containers/shared/containers";
const sandboxStorage = "/run/kata-containers/sandbox/storage";
const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;

const isSandbox = (spec: OciSpec) => spec.annotations["io.kubernetes.cri.container-type"] === "sandbox";

/**
 * All requests of a pod's start, in their order: network, sandbox, then each container's files, itself and its start.
 *
 * @param sandboxHasGpus as with the Go runtime before 4.1 (container.go, createDevices)
 */
export function requestsOf(captured: Captured, flavour: RuntimeFlavour, sandboxHasGpus = false): KataRequest[] {
  const [sandbox] = captured.containers;
  if (sandbox === undefined) throw new Error("no sandbox");
  // SCSI addresses by source, in the order in which Kata attaches the disks (device/manager, GetAndSetSandboxBlockIndex).
  const disks = new Map<string, string>();
  return [
    ...network(captured.pod.ip),
    createSandbox(sandbox.id, sandbox.spec),
    ...captured.containers.flatMap(({ id, spec }) => [
      ...containerRequests(id, spec, captured, disks, flavour, sandboxHasGpus),
      { kind: "StartContainerRequest", input: { container_id: id } },
      { kind: "WaitProcessRequest", input: { container_id: id, exec_id: id } },
      { kind: "StatsContainerRequest", input: { container_id: id } },
    ]),
    { kind: "GetOOMEventRequest", input: {} },
    ...captured.containers.flatMap(({ id }) => [
      { kind: "SignalProcessRequest", input: { container_id: id, exec_id: id, signal: 15 } },
      { kind: "SignalProcessRequest", input: { container_id: id, exec_id: "", signal: 9 } },
      { kind: "RemoveContainerRequest", input: { container_id: id, timeout: 0 } },
      // container.go, stop; runtime-rs does not ask for it.
      ...(flavour !== "kata-rs" ? [{ kind: "RemoveStaleVirtiofsShareMountsRequest", input: {} }] : []),
    ]),
    { kind: "DestroySandboxRequest", input: {} },
  ];
}

/** network.go, generateVCNetworkStructures: a veth of the CNI's bridge. */
function network(ip: string): KataRequest[] {
  const gateway = ip.replace(/\d+$/, "1");
  const route = { flags: 0, mtu: 0, family: 0, device: "eth0", source: "" };
  return [
    {
      kind: "UpdateInterfaceRequest",
      input: {
        interface: {
          device: "eth0",
          name: "eth0",
          IPAddresses: [{ family: 0, address: ip, mask: "24" }],
          mtu: 1500,
          hwAddr: "02:42:ac:11:00:02",
          devicePath: "",
          type_: "",
          raw_flags: 0,
        },
      },
    },
    {
      kind: "UpdateRoutesRequest",
      input: {
        routes: {
          Routes: [
            { ...route, dest: "", gateway, scope: 0 },
            { ...route, dest: ip.replace(/\d+$/, "0/24"), gateway: "", source: ip, scope: 253 },
          ],
        },
      },
    },
    {
      kind: "AddARPNeighborsRequest",
      input: {
        neighbors: {
          ARPNeighbors: [
            {
              toIPAddress: { family: 0, address: gateway, mask: "" },
              device: "eth0",
              lladdr: "02:42:ac:11:00:01",
              state: 128,
              flags: 0,
            },
          ],
        },
      },
    },
  ];
}

/** kata_agent.go, startSandbox and setupStorages; the size is that of the file system that containerd made. */
function createSandbox(id: string, spec: OciSpec): KataRequest {
  return {
    kind: "CreateSandboxRequest",
    input: {
      hostname: (spec.hostname ?? "").slice(0, 64),
      dns: [
        "search shop.svc.cluster.local svc.cluster.local cluster.local",
        "nameserver 10.96.0.10",
        "options ndots:5",
        "",
      ],
      storages: [
        storage({
          driver: "ephemeral",
          source: "shm",
          fstype: "tmpfs",
          options: ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"],
          mount_point: "/run/kata-containers/sandbox/shm",
        }),
      ],
      sandbox_pidns: false,
      sandbox_id: id,
      guest_hook_path: "",
      kernel_modules: [],
    },
  };
}

const storage = (given: { [key: string]: Json }) => ({
  driver: "",
  driver_options: [],
  source: "",
  fstype: "",
  options: [],
  mount_point: "",
  fs_group: null,
  shared: false,
  ...given,
});

function containerRequests(
  id: string,
  spec: OciSpec,
  { sources, containers }: Captured,
  disks: Map<string, string>,
  flavour: RuntimeFlavour,
  sandboxHasGpus: boolean,
): KataRequest[] {
  const copies: KataRequest[] = [];
  const storages: Json[] = [];
  const diskStorages: Json[] = [];
  const mounts: Json[] = [];
  const gpus = passedThrough(spec.linux.devices ?? []);
  const annotations: Record<string, string> = {
    ...spec.annotations,
    ...gpus.annotations,
    ...(isSandbox(spec) && flavour !== "kata-rs" ? { "nerdctl/network-namespace": networkOf(spec) } : {}),
    "io.katacontainers.pkg.oci.bundle_path": `/run/containerd/io.containerd.runtime.v2.task/k8s.io/${id}`,
    "io.katacontainers.pkg.oci.container_type": isSandbox(spec) ? "pod_sandbox" : "pod_container",
  };
  storages.push(
    storage({
      driver: "image_guest_pull",
      // Contrast's patch takes it away, and the agent that reads it.
      driver_options:
        flavour === "contrast-go" ? [] : [`image_guest_pull=${JSON.stringify({ metadata: annotations })}`],
      source: isSandbox(spec) ? "pause" : (annotations["io.kubernetes.cri.image-name"] ?? ""),
      fstype: "overlay",
      mount_point: `/run/kata-containers/${id}/rootfs`,
    }),
  );
  for (const [index, { destination, type, source, options }] of spec.mounts.entries()) {
    const found = sources[source];
    const volume = posix.basename(source);
    const isEmptyDir = source.includes("/kubernetes.io~empty-dir/");
    const gid = found?.files[0]?.gid ?? 0;
    if (destination === "/dev/shm")
      mounts.push({ destination, type_: "bind", source: "/run/kata-containers/sandbox/shm", options: ["rbind"] });
    else if (type !== "bind" || found === undefined) mounts.push({ destination, type_: type, source, options });
    else if (isEmptyDir && found.fileSystem === "tmpfs") {
      // handleEphemeralStorage
      const at = `/run/kata-containers/sandbox/ephemeral/${volume}`;
      const group = gid === 0 ? [] : [`fsgid=${gid}`];
      storages.push(
        storage({ driver: "ephemeral", source: "tmpfs", fstype: "tmpfs", mount_point: at, options: group }),
      );
      mounts.push({ destination, type_: "bind", source: at, options });
    } else if (isEmptyDir && flavour === "contrast-go") {
      // ShareFile, shareFileName: emptydir_mode shared-fs, disable_guest_empty_dir. One for all containers.
      const at = `${shared}/sandbox-${"5".repeat(16)}-${volume}`;
      if (!disks.has(source)) copies.push(...found.files.slice(0, 1).map((file) => copyFile(at, file)));
      disks.set(source, at);
      mounts.push({ destination, type_: "bind", source: at, options });
    } else if (isEmptyDir) {
      // setupEphemeralDisk, createBlockDevices, handleDeviceBlockVolume, handleBlkOCIMounts
      const address = disks.get(source) ?? `0:${disks.size}`;
      disks.set(source, address);
      const at = `${sandboxStorage}/${Buffer.from(address).toString("base64").replaceAll("+", "-").replaceAll("/", "_")}`;
      diskStorages.push(
        storage({
          driver: "scsi",
          driver_options: ["encryption_key=ephemeral", "create_filesystem"],
          source: address,
          fstype: "ext4",
          mount_point: at,
          fs_group: gid === 0 ? null : { group_id: gid, group_change_policy: 0 },
          shared: true,
        }),
      );
      mounts.push({ destination, type_: "bind", source: at, options });
    } else {
      // ShareFile without a shared file system: a random name, and a request for each file.
      const random = `${id.slice(0, 14)}${(index + 16).toString(16)}`;
      const at = `${shared}/${id}-${random}-${posix.basename(destination)}`;
      copies.push(...found.files.map((file) => copyFile(at, file)));
      mounts.push({ destination, type_: "bind", source: at, options });
    }
  }
  const { process, linux } = spec;
  const pid = linux.namespaces.find(({ type }) => type === "pid");
  const dropped = ["pid", "network", "time", ...(flavour !== "kata-rs" ? ["cgroup"] : [])];
  // constrainGRPCSpec: those that are passed through have no file in the guest.
  const devices = (linux.devices ?? []).filter((device) => !isVfio(device));
  const create = {
    container_id: id,
    exec_id: flavour !== "kata-rs" ? id : "",
    string_user: null,
    devices: [
      ...(isSandbox(spec) && sandboxHasGpus
        ? passedThrough(containers.flatMap((one) => one.spec.linux.devices ?? [])).devices
        : gpus.devices),
      ...devices.map(({ path }, index) => ({
        id: `0:${disks.size + index}`,
        type_: "scsi",
        vm_path: "",
        container_path: path,
        options: [],
      })),
    ],
    // createContainer: handleEphemeralStorage comes before handleBlkOCIMounts.
    storages: [...storages, ...diskStorages],
    OCI: {
      Version: spec.ociVersion,
      Process: {
        Terminal: process.terminal ?? false,
        ConsoleSize: null,
        User: userOf(process),
        Args: process.args,
        Env: process.env,
        Cwd: process.cwd,
        Capabilities: {
          Ambient: [],
          Bounding: process.capabilities?.bounding ?? [],
          Effective: process.capabilities?.effective ?? [],
          Inheritable: [],
          Permitted: process.capabilities?.permitted ?? [],
        },
        Rlimits: [],
        NoNewPrivileges: process.noNewPrivileges ?? false,
        ApparmorProfile: process.apparmorProfile ?? "",
        OOMScoreAdj: process.oomScoreAdj ?? 0,
        SelinuxLabel: "",
      },
      Root: { Path: `/run/kata-containers/${id}/rootfs`, Readonly: spec.root.readonly ?? false },
      Hostname: spec.hostname ?? "",
      Mounts: mounts,
      Hooks: null,
      Annotations: annotations,
      Linux: {
        UIDMappings: [],
        GIDMappings: [],
        Sysctl: linux.sysctl ?? {},
        // constrainGRPCSpec
        Resources: {
          Devices: [],
          Memory: linux.resources.memory ? memoryOf(linux.resources.memory) : null,
          CPU: cpuOf(linux.resources.cpu ?? {}),
          Pids: null,
          BlockIO: null,
          HugepageLimits: [],
          Network: null,
        },
        CgroupsPath: linux.cgroupsPath,
        Namespaces: linux.namespaces
          .filter(({ type }) => !dropped.includes(type))
          .map(({ type }) => ({ Type: type, Path: "" })),
        Devices: devices.map(({ path, type, major, minor, fileMode, uid, gid }) => ({
          Path: path,
          Type: type,
          Major: major,
          Minor: minor,
          FileMode: fileMode,
          UID: uid,
          GID: gid,
        })),
        Seccomp: null,
        RootfsPropagation: "",
        MaskedPaths: linux.maskedPaths,
        ReadonlyPaths: linux.readonlyPaths,
        MountLabel: "",
        IntelRdt: null,
      },
      Solaris: null,
      Windows: null,
    },
    sandbox_pidns: pid?.path !== undefined,
    shared_mounts: [],
    stdin_port: 0,
    stdout_port: 0,
    stderr_port: 0,
  };
  return [...copies, { kind: "CreateContainerRequest", input: create }];
}

const memoryOf = ({ limit = 0, swap = 0 }: NonNullable<OciSpec["linux"]["resources"]["memory"]>) => ({
  Limit: limit,
  Reservation: 0,
  Swap: swap,
  Kernel: 0,
  KernelTCP: 0,
  Swappiness: 0,
  DisableOOMKiller: false,
});

const cpuOf = ({ shares = 0, quota = 0, period = 0 }: NonNullable<OciSpec["linux"]["resources"]["cpu"]>) => ({
  Shares: shares,
  Quota: quota,
  Period: period,
  RealtimeRuntime: 0,
  RealtimePeriod: 0,
  Cpus: "",
  Mems: "",
});

const networkOf = ({ linux }: OciSpec) => linux.namespaces.find(({ type }) => type === "network")?.path ?? "";

const userOf = ({ user }: OciSpec["process"]) => ({
  UID: user.uid,
  GID: user.gid,
  AdditionalGids: user.additionalGids ?? [],
  Username: "",
});

/** As the agent shows it to the policy: src/agent/policy/src/policy.rs, PolicyCopyFileRequest. */
function copyFile(at: string, { kind, path, mode, uid, gid, target }: Source["files"][number]): KataRequest {
  const type = kind === "d" ? "Directory" : kind === "l" ? "Symlink" : "Regular";
  const flag = { Directory: S_IFDIR, Symlink: S_IFLNK, Regular: S_IFREG }[type];
  return {
    kind: "CopyFileRequest",
    input: {
      path: path === "" ? at : `${at}/${path}`,
      file_type: type,
      symlink_target: target ?? null,
      file_size: type === "Regular" ? 12 : 0,
      file_mode: flag | Number.parseInt(mode, 8),
      // Go's own bit for a directory (os.ModeDir), as Kata's Go runtime sends it.
      dir_mode: 2 ** 31 + 0o750,
      uid,
      gid,
      offset: 0,
    },
  };
}

/** kata_agent.go, exec and cmdToKataProcess; runtime-rs hands on the whole process. containerd sets TERM beside a terminal. */
export function execRequest(id: string, spec: OciSpec, args: string[], terminal = false): KataRequest {
  return {
    kind: "ExecProcessRequest",
    input: {
      container_id: id,
      exec_id: "7e3a5f8e-0d3c-4b57-a9d1-6f2b8c1d4e90",
      string_user: null,
      process: {
        Terminal: terminal,
        ConsoleSize: null,
        User: userOf(spec.process),
        Args: args,
        Env: terminal
          ? [...spec.process.env.filter((variable) => !variable.startsWith("TERM=")), "TERM=xterm"]
          : spec.process.env,
        Cwd: spec.process.cwd,
        Capabilities: null,
        Rlimits: [],
        NoNewPrivileges: false,
        ApparmorProfile: "",
        OOMScoreAdj: 0,
        SelinuxLabel: "",
      },
      stdin_port: 0,
      stdout_port: 0,
      stderr_port: 0,
    },
  };
}
