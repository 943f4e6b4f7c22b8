import { access, constants, mkdir, readFile } from "node:fs/promises";
import { Refusal } from "../../runtime/refusal.ts";
import type { Progress } from "../process/progress.ts";
import { run } from "../process/run.ts";
import { cacheDirectory, requireSpace } from "../programs/cache.ts";
import { requireHostPrograms } from "../programs/host-packages.ts";
import { hierarchies } from "./cgroups.ts";
import { clustersDirectory } from "./layout.ts";

export function requireRoot(): void {
  const { platform, arch } = process;
  if (platform !== "linux" || arch !== "x64")
    throw new Refusal(
      "wrong-platform",
      `A local cluster needs Linux on x86-64; this machine runs ${platform} on ${arch}. Everything else works here: use a cluster that you have, or run this on another machine.`,
    );
  if (process.getuid?.() === 0) return;
  throw new Refusal("not-root", "A local cluster creates network namespaces, mounts and machines: run this as root.");
}

/** Everything that the machine must provide, checked before anything is made. */
export async function requireMachine(progress: Progress): Promise<void> {
  requireRoot();
  await requireHostPrograms(
    [
      { program: "systemd-nspawn", package: "systemd-container" },
      { program: "ip", package: "iproute2" },
      { program: "nsenter", package: "util-linux" },
      { program: "unshare", package: "util-linux" },
      { program: "mount", package: "mount" },
      { program: "openssl", package: "openssl" },
    ],
    progress,
  );
  await requireKernel();
  await mkdir(cacheDirectory(), { recursive: true });
  // It is not made here: it goes with the last cluster, which another process may be removing at this moment.
  await requireSpace(clustersDirectory, 2e9, "A local cluster");
}

async function requireKernel(): Promise<void> {
  const fileSystems = async () => (await readFile("/proc/filesystems", "utf8")).split(/\s+/);
  if (!(await fileSystems()).includes("overlay")) await run("modprobe", ["overlay"]).catch(() => undefined);
  if (!(await fileSystems()).includes("overlay"))
    throw new Refusal(
      "kernel-feature",
      "This kernel has no overlayfs, which the nodes' disks need: load or build the module overlay.",
    );
  const bridge = await run("unshare", [
    "--net",
    "sh",
    "-c",
    "ip link add br0 type bridge && ip link add veth0 type veth peer name veth1",
  ]);
  if (bridge.code !== 0)
    throw new Refusal(
      "kernel-feature",
      `This machine cannot create network namespaces with bridges and veth devices, which connect the nodes: ${bridge.stderr.trim()}. Load or build the kernel modules bridge and veth; inside a container, run it privileged.`,
    );
  const groups = await hierarchies();
  if (groups.length === 0)
    throw new Refusal(
      "kernel-feature",
      "No control group hierarchy is mounted below /sys/fs/cgroup; the nodes' kubelets need one.",
    );
  for (const { directory } of groups)
    await access(directory, constants.W_OK).catch(() => {
      throw new Refusal(
        "kernel-feature",
        `${directory} is read-only, but local clusters create control groups there. Inside a container, run it privileged with its own cgroup namespace.`,
      );
    });
}

/** Whether this process may lower OOM scores, and so whether the nodes' containerd may (CAP_SYS_RESOURCE). */
export async function mayLowerOomScores(): Promise<boolean> {
  const status = await readFile("/proc/self/status", "utf8");
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`);
  return ((effective >> 24n) & 1n) === 1n;
}
