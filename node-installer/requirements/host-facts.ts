import type { Host } from "../host/host.ts";
import { type RequestTimeout, readRequestTimeout } from "./kubelet-configuration.ts";

/** What `checkHost` judges: all that it needs to know about a node, and no secrets. */
export interface HostFacts {
  kernel: { release: string; commandLine: string };
  /** ID of os-release, such as "ubuntu". */
  os: string;
  cpu: {
    /** As the kernel writes it: "AuthenticAMD"; of an ARM processor, for which it writes none: "ARM". */
    vendor: string;
    family: number;
    model: number;
    /** Those that the kernel reports; it hides what it cannot use. */
    flags: CpuFlag[];
  };
  /** Those that are loaded, or built in with parameters. */
  modules: Module[];
  /** "kvm_amd.sev_snp": "Y" */
  parameters: Partial<Record<Parameter, string>>;
  /** Whether a file of this product sets parameters of modules, which counts from the modules' next start on. */
  modulesPrepared: boolean;
  iommu: {
    /** Such as "ivhd0" (AMD) or "dmar0" (Intel); empty if the IOMMU is off. */
    devices: string[];
    /** Domain type of the first group: "identity" is passthrough. */
    domain?: string;
  };
  /** Those that exist. */
  devices: Device[];
  /** Capacities of the misc cgroup: the number of encrypted VMs that the hardware has keys for. */
  misc: Record<string, number>;
  /** fs.inotify.max_user_instances */
  inotifyInstances?: number;
  /** By directory that the installer writes to: the mount that it is on. */
  mounts: Record<string, { readOnly: boolean; noExec: boolean; mountPoint: string }>;
  kubeletRequestTimeout?: RequestTimeout;
  /** Whether Intel's service that signs TDX quotes is installed. */
  quoteService: boolean;
  selinux?: "enforcing" | "permissive";
  /** NVIDIA's 3D controllers by PCI address, with the driver that they are bound to. */
  gpus: { address: string; driver: string }[];
}

/** The processor's flags that a check looks at; `hypervisor`: it is a virtual machine's. */
export const cpuFlags = ["svm", "vmx", "sev_snp", "tdx_host_platform", "hypervisor"] as const;
export type CpuFlag = (typeof cpuFlags)[number];
const modules = [
  "kvm",
  "kvm_amd",
  "kvm_intel",
  "ccp",
  "vhost_vsock",
  "vhost_net",
  "vmw_vsock_vmci_transport",
  "vfio_pci",
] as const;
export type Module = (typeof modules)[number];
const parameters = ["kvm_amd.sev", "kvm_amd.sev_es", "kvm_amd.sev_snp", "kvm_intel.tdx", "kvm_intel.sgx"] as const;
export type Parameter = (typeof parameters)[number];
const devices = ["kvm", "mshv", "sev", "vhost-vsock", "vhost-net", "vfio/vfio"] as const;
export type Device = (typeof devices)[number];
/** Where a host's preparation sets the modules' parameters; see components/bare-metal-scripts.ts. */
export const moduleOptionsFile = "/etc/modprobe.d/contrast-runtime.conf";
const nvidia = "0x10de";
/** PCI class of a GPU without a display output; a display controller's is 0x0300. */
const gpuClasses = ["0x0302", "0x0300"];

/** Only reads. What cannot be read counts as absent; each check explains that in its own words. */
export async function gatherHostFacts(host: Host, writtenDirectories: readonly string[]): Promise<HostFacts> {
  const read = (path: string) => readText(host, path);
  const cpuinfo = (await read("/proc/cpuinfo")).split("\n\n")[0] ?? "";
  const cpuField = (name: string) => new RegExp(`^${name}[ \\t]*:[ \\t]*(.*)$`, "m").exec(cpuinfo)?.[1]?.trim() ?? "";
  const flags = new Set(cpuField("flags").split(" "));
  const inotify = (await read("/proc/sys/fs/inotify/max_user_instances")).trim();
  const requestTimeout = await readRequestTimeout(host);
  const enforce = (await read("/sys/fs/selinux/enforce")).trim();
  const domain = (await read("/sys/kernel/iommu_groups/0/type")).trim();
  return {
    kernel: {
      release: (await read("/proc/sys/kernel/osrelease")).trim(),
      commandLine: (await read("/proc/cmdline")).trim(),
    },
    os: /^ID="?([^"\n]*)"?$/m.exec((await read("/etc/os-release")) || (await read("/usr/lib/os-release")))?.[1] ?? "",
    cpu: {
      vendor: cpuField("vendor_id") || (cpuField("CPU implementer") === "" ? "" : "ARM"),
      family: Number(cpuField("cpu family")) || 0,
      model: Number(cpuField("model")) || 0,
      flags: cpuFlags.filter((flag) => flags.has(flag)),
    },
    modules: await existing(host, "/sys/module", modules),
    parameters: await readParameters(host),
    // That it is there, not what is in it: of files below /etc a plan's bundle has no more.
    modulesPrepared: (await host.stat(moduleOptionsFile).catch(() => undefined)) !== undefined,
    iommu: {
      devices: await host.readDirectory("/sys/class/iommu").catch(() => []),
      ...(domain !== "" && { domain }),
    },
    devices: await existing(host, "/dev", devices),
    misc: await readMiscCapacity(host),
    ...(/^\d+$/.test(inotify) && { inotifyInstances: Number(inotify) }),
    mounts: await readMounts(host, writtenDirectories),
    ...(requestTimeout && { kubeletRequestTimeout: requestTimeout }),
    quoteService: (await existing(host, "/", ["etc/qgs.conf", "run/tdx-qgs", "var/run/tdx-qgs"])).length > 0,
    ...(enforce !== "" && { selinux: enforce === "1" ? ("enforcing" as const) : ("permissive" as const) }),
    gpus: await readGpus(host),
  };
}

async function readText(host: Host, path: string): Promise<string> {
  try {
    return (await host.readFile(path)).toString("utf8");
  } catch {
    return "";
  }
}

async function existing<Name extends string>(host: Host, directory: string, names: readonly Name[]): Promise<Name[]> {
  const stats = await Promise.all(
    names.map((name) => host.stat(`${directory}/${name}`.replace("//", "/")).catch(() => undefined)),
  );
  return names.filter((_, index) => stats[index] !== undefined);
}

async function readParameters(host: Host): Promise<HostFacts["parameters"]> {
  const found: HostFacts["parameters"] = {};
  for (const name of parameters) {
    const value = (await readText(host, `/sys/module/${name.replace(".", "/parameters/")}`)).trim();
    if (value !== "") found[name] = value;
  }
  return found;
}

/** Lines like `sev_es 99`; in cgroup v1 the controller has its own directory. */
async function readMiscCapacity(host: Host): Promise<Record<string, number>> {
  const text =
    (await readText(host, "/sys/fs/cgroup/misc.capacity")) ||
    (await readText(host, "/sys/fs/cgroup/misc/misc.capacity"));
  const lines = [...text.matchAll(/^(\w+) (\d+)$/gm)];
  return Object.fromEntries(lines.map(([, name = "", capacity]) => [name, Number(capacity)]));
}

/** The mount that each directory is on, as a process of the host sees it. */
async function readMounts(host: Host, directories: readonly string[]): Promise<HostFacts["mounts"]> {
  // In a pod, only a program that runs in the host's root sees the host's paths in it.
  const { code, stdout } = await host.run("cat", ["/proc/self/mountinfo"]);
  const text = code === 0 ? stdout : await readText(host, "/proc/self/mountinfo");
  const mounts = text.split("\n").flatMap((line) => {
    // 36 35 98:0 /root /mount/point rw,noatime optional... - type source rw,errors=continue
    const [before = "", after = ""] = line.split(" - ");
    const [, , , , mountPoint, options = ""] = before.split(" ");
    if (mountPoint === undefined) return [];
    const all = [...options.split(","), ...(after.split(" ")[2] ?? "").split(",")];
    return [{ mountPoint: unescapeOctal(mountPoint), readOnly: all.includes("ro"), noExec: all.includes("noexec") }];
  });
  const result: HostFacts["mounts"] = {};
  for (const directory of directories) {
    const path = await host.realpath(directory).catch(() => directory);
    // Of equally deep mounts, the last is on top.
    const mount = mounts
      .filter(({ mountPoint }) => mountPoint === "/" || path === mountPoint || path.startsWith(`${mountPoint}/`))
      .reduce<(typeof mounts)[number] | undefined>(
        (best, next) => (best === undefined || next.mountPoint.length >= best.mountPoint.length ? next : best),
        undefined,
      );
    if (mount !== undefined) result[directory] = mount;
  }
  return result;
}

const unescapeOctal = (path: string): string =>
  path.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));

async function readGpus(host: Host): Promise<HostFacts["gpus"]> {
  const directory = "/sys/bus/pci/devices";
  const gpus: HostFacts["gpus"] = [];
  for (const address of await host.readDirectory(directory).catch(() => [])) {
    if ((await readText(host, `${directory}/${address}/vendor`)).trim() !== nvidia) continue;
    const kind = (await readText(host, `${directory}/${address}/class`)).trim();
    if (!gpuClasses.some((prefix) => kind.startsWith(prefix))) continue;
    const link = `${directory}/${address}/driver`;
    const bound = (await host.stat(link).catch(() => undefined)) !== undefined;
    gpus.push({ address, driver: bound ? ((await host.realpath(link)).split("/").at(-1) ?? "none") : "none" });
  }
  return gpus;
}
