import { posix } from "node:path";
import * as z from "zod";
import type { FlavourName } from "../../runtime/flavours.ts";
import type { Problem } from "../problems.ts";
import { literally } from "./variables.ts";

const source = z.object({ name: z.string() }).catchall(z.unknown());
const emptyDir = z.object({ medium: z.string().optional() }).catchall(z.unknown());
export const podVolumes = z.array(source).optional();
export const volumeMounts = z
  .array(
    z.object({
      name: z.string(),
      mountPath: z.string(),
      readOnly: z.boolean().optional(),
      subPath: z.string().optional(),
      subPathExpr: z.string().optional(),
      mountPropagation: z.string().optional(),
      recursiveReadOnly: z.string().optional(),
    }),
  )
  .optional();
export const volumeDevices = z.array(z.object({ name: z.string(), devicePath: z.string() })).optional();

/** A mount as the policy has it. Its source is a text, a copied file's or directory's name, or a volume's place in the guest. */
export interface PinnedMount {
  destination: string;
  type_: string;
  options: string[];
  source?: string;
  /** Pattern of the name that the copy ends with. */
  copy?: string;
  disk?: string;
  /** An emptyDir that is a directory of the guest's own file system. */
  directory?: string;
}
export type PinnedStorage = { is: object } | { image: string[] } | { disk: string; fs_group: object | null };

/** Kinds of volumes whose files the host copies into the guest, as kubelet has made them. */
const copied = ["configMap", "secret", "projected", "downwardAPI"];

const mount = (destination: string, type_: string, source: string, options: string): PinnedMount => ({
  destination,
  type_,
  source,
  options: options.split(" "),
});

/** containerd's own, of every container (pkg/cri/server/container_create.go, oci/mounts.go). */
const common = [
  mount("/proc", "proc", "proc", "nosuid noexec nodev"),
  mount("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
  mount("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
  mount("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
  mount("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
  // Kata replaces it by the sandbox's: kata_agent.go, handleShm; runtime-rs, shm_volume.rs.
  mount("/dev/shm", "bind", "/run/kata-containers/sandbox/shm", "rbind"),
];

/** A file or directory that Kata copies, since it shares no file system: NAME of ID-RANDOM-NAME is the mount path's last part. */
const copy = (destination: string, options: string[]): PinnedMount => ({
  destination,
  type_: "bind",
  copy: literally(posix.basename(destination)),
  options,
});

export const sandboxMounts: PinnedMount[] = [
  ...common,
  copy("/etc/resolv.conf", ["rbind", "ro", "nosuid", "nodev", "noexec"]),
];

export interface ContainerVolumes {
  mounts: PinnedMount[];
  storages: PinnedStorage[];
  devices: string[];
  copiedFiles: string[];
  copiedDirectories: string[];
  /** Names of volumes. */
  emptyDirectories: string[];
}

export interface VolumeInput {
  mounts: z.output<typeof volumeMounts>;
  devices: z.output<typeof volumeDevices>;
  volumes: z.output<typeof podVolumes>;
  claims: Record<string, { volumeMode: "Filesystem" | "Block" }>;
  fsGroup: number | undefined;
  readonlyRoot: boolean;
  terminationLog: string;
  serviceAccountToken: boolean;
  /** What an emptyDir is: see `emptyDirsOf`. */
  emptyDirs: "disk" | "directory";
}

/** emptydir_mode and disable_guest_empty_dir, as they are configured here for each flavour (runtime/kata-configuration.ts). */
export const emptyDirsOf = (flavour: FlavourName): VolumeInput["emptyDirs"] =>
  flavour === "contrast-go" ? "directory" : "disk";

const bind = (readonly: boolean) => ["rbind", "rprivate", readonly ? "ro" : "rw"];

/** What a container mounts, as Kata's runtimes hand it to the agent without a shared file system and with encrypted disks. */
export function volumesOf(input: VolumeInput, path: string, problems: Problem[]): ContainerVolumes {
  const { volumes = [], fsGroup, readonlyRoot } = input;
  const found: ContainerVolumes = {
    ...{ mounts: [], storages: [], devices: [], copiedFiles: [], copiedDirectories: [], emptyDirectories: [] },
  };
  const storages = new Map<string, PinnedStorage>();
  const add = (wanted: PinnedMount, directory: boolean) => {
    found.mounts.push(wanted);
    if (wanted.copy !== undefined) (directory ? found.copiedDirectories : found.copiedFiles).push(wanted.copy);
  };
  for (const [index, one] of (input.mounts ?? []).entries()) {
    const field = `${path}.volumeMounts[${index}]`;
    const report = (message: string) => problems.push({ field, message });
    const volume = volumes.find(({ name }) => name === one.name);
    const kind = Object.keys(volume ?? {}).find((key) => key !== "name" && volume?.[key] != null);
    const options = bind(one.readOnly === true);
    const { subPath = "" } = one;
    if ((one.mountPropagation ?? "None") !== "None") report("propagates mounts, which ends at the guest");
    if ((one.recursiveReadOnly ?? "Disabled") !== "Disabled")
      report("is recursively read-only, which is not known here");
    if (one.subPathExpr) report("has a subPathExpr, which only the node can resolve");
    else if (kind !== undefined && copied.includes(kind)) {
      // kubelet makes these read-only, whatever the template says.
      add(copy(one.mountPath, bind(true)), subPath === "");
    } else if (kind === "emptyDir" && subPath === "") {
      const medium = emptyDir.safeParse(volume?.emptyDir).data?.medium ?? "";
      if (medium === "Memory") {
        const at = `/run/kata-containers/sandbox/ephemeral/${one.name}`;
        add({ destination: one.mountPath, type_: "bind", source: at, options }, true);
        storages.set(one.name, { is: memory(at, fsGroup) });
      } else if (medium === "" && input.emptyDirs === "directory") {
        add({ destination: one.mountPath, type_: "bind", directory: one.name, options }, true);
        found.emptyDirectories.push(one.name);
      } else if (medium === "") {
        add({ destination: one.mountPath, type_: "bind", disk: one.name, options }, true);
        const group = fsGroup === undefined || fsGroup === 0 ? null : { group_id: fsGroup, group_change_policy: 0 };
        storages.set(one.name, { disk: one.name, fs_group: group });
      } else report(`is an emptyDir of the medium ${medium}, which is not known here`);
    } else if (kind === "emptyDir") report("is a part (subPath) of an emptyDir, which Kata would copy from the node");
    else {
      const what = kind === undefined ? "no volume of the pod" : `a volume of the kind ${kind}`;
      report(
        `is ${what}: its files would be a copy of the node's. Volumes that a guest has for itself are emptyDir, and claims of the volumeMode Block as volumeDevices`,
      );
    }
  }
  for (const [index, { name, devicePath }] of (input.devices ?? []).entries()) {
    const claim = z
      .object({ claimName: z.string() })
      .safeParse(volumes.find((one) => one.name === name)?.persistentVolumeClaim);
    const mode = input.claims[claim.data?.claimName ?? name]?.volumeMode;
    if (mode !== "Block")
      problems.push({
        field: `${path}.volumeDevices[${index}]`,
        message: `is of the claim "${name}", whose volumeMode is not known to be Block`,
      });
    found.devices.push(devicePath);
  }
  const implicit = [
    mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid noexec nodev relatime ro"),
    copy("/etc/hosts", bind(false)),
    copy(input.terminationLog, bind(false)),
    copy("/etc/hostname", bind(readonlyRoot)),
    copy("/etc/resolv.conf", bind(readonlyRoot)),
  ];
  const has = (destination: string) => found.mounts.some((one) => one.destination === destination);
  for (const one of [...common, ...implicit]) if (!has(one.destination)) add(one, false);
  const token = "/var/run/secrets/kubernetes.io/serviceaccount";
  if (input.serviceAccountToken && !has(token)) add(copy(token, bind(true)), true);
  return { ...found, storages: [...storages.values()] };
}

const memory = (at: string, fsGroup: number | undefined) => ({
  driver: "ephemeral",
  driver_options: [],
  fs_group: null,
  fstype: "tmpfs",
  mount_point: at,
  options: fsGroup === undefined || fsGroup === 0 ? [] : [`fsgid=${fsGroup}`],
  shared: false,
  source: "tmpfs",
});
