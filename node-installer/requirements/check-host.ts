import type { HostRequirements } from "../../runtime/spec.ts";
import { not, vendor } from "./conditions.ts";
import { error, type Finding, warning } from "./finding.ts";
import { gpu, unboundGpus } from "./gpu.ts";
import type { HostFacts } from "./host-facts.ts";
import { kvm, onMachine } from "./kvm.ts";
import { snp } from "./snp.ts";
import { findings, type Table } from "./table.ts";
import { tdx } from "./tdx.ts";

export type { Finding } from "./finding.ts";
export { gatherHostFacts, type HostFacts } from "./host-facts.ts";

type Check = (facts: HostFacts, requirements: HostRequirements) => Finding[];

/** Judges nothing but facts, so it works alike on a node and on the bundle of a remote one. Errors first, no duplicates. */
export function checkHost(facts: HostFacts, requirements: readonly HostRequirements[]): Finding[] {
  const findings = new Map<string, Finding>();
  for (const requirement of requirements) {
    for (const check of checks) {
      for (const finding of check(facts, requirement)) findings.set(finding.message, finding);
    }
  }
  const order = { error: 0, warning: 1 };
  return [...findings.values()].toSorted((a, b) => order[a.severity] - order[b.severity]);
}

const checkMounts: Check = ({ mounts, os }) =>
  Object.entries(mounts).flatMap(([directory, { readOnly, noExec, mountPoint }]) => {
    if (readOnly) {
      const there = Object.keys(mounts).filter((other) => mounts[other]?.mountPoint === mountPoint);
      const flatcar =
        os === "flatcar" ? " Flatcar's containerd reads /usr, which is read-only: give it a --config below /etc." : "";
      return error(
        "read-only",
        `The mount ${mountPoint} is read-only, so nothing can be written to ${there.join(", ")}: mount it writable.${flatcar}`,
      );
    }
    if (noExec && directory.startsWith("/opt")) {
      return error(
        "no-exec",
        `${directory} is on ${mountPoint}, which is mounted with noexec, so no shim can run from it: mount it without noexec.`,
      );
    }
    return [];
  });

const checkMshv: Check = ({ devices }, { virtualization }) =>
  virtualization === "mshv" && !devices.includes("mshv")
    ? [
        error(
          "mshv-missing",
          "/dev/mshv is missing: this node is not in an AKS pool with the workload runtime KataCcIsolation. Take it out of the group, or recreate the pool with that workload runtime.",
        ),
      ]
    : [];

const architecture: Table = [
  [
    {
      code: "not-x86-64",
      wanted: not(vendor("ARM")),
      problem: "This host has an ARM processor, and all runtimes are programs for x86-64",
      remedy: "take it out of the group",
    },
  ],
];

/** The tables of what a host of this kind must have. On AKS the hypervisor owns the hardware; the node sees but /dev/mshv. */
export const tablesFor = ({ virtualization, tee, gpu: withGpu }: HostRequirements): Table[] => {
  const tables: Table[] = [];
  // A journal of a newer version may name a TEE that is not known here.
  const ofTee = new Map<string, Table>([
    ["snp", snp],
    ["tdx", tdx],
  ]).get(tee);
  if (virtualization === "kvm") tables.push(kvm, ...(ofTee === undefined ? [] : [ofTee]));
  if (withGpu) tables.push(gpu);
  const judged = virtualization === "kvm" ? tables.map((table) => onMachine(tee, table)) : tables;
  return (judged.length > 0 ? judged : [[]]).map((table) => [...architecture, ...table]);
};

const checkTables: Check = (facts, requirements) => tablesFor(requirements).flatMap((table) => findings(table, facts));

const checkGpuDrivers: Check = (facts, { gpu, tee }) =>
  gpu && (tee === "none" || !facts.cpu.flags.includes("hypervisor")) ? unboundGpus(facts) : [];

const leastInotifyInstances = 8192;
const leastRequestSeconds = 300;
const kubeletDefault = { seconds: 120, path: "kubelet's default, as none of its usual files sets another" };

const checkLimits: Check = ({ inotifyInstances, kubeletRequestTimeout, selinux }, { virtualization, guestPull }) => {
  const findings: Finding[] = [];
  if (virtualization !== "none" && inotifyInstances !== undefined && inotifyInstances < leastInotifyInstances) {
    findings.push(
      warning(
        "inotify-instances",
        `fs.inotify.max_user_instances is ${inotifyInstances}, which a few VMs exhaust: set it to ${leastInotifyInstances} in a file in /etc/sysctl.d.`,
      ),
    );
  }
  const { seconds, path } = kubeletRequestTimeout ?? kubeletDefault;
  if (guestPull && seconds < leastRequestSeconds) {
    findings.push(
      warning(
        "request-timeout",
        `kubelet's runtimeRequestTimeout is ${seconds} s (${path}), but images are pulled inside the VM while kubelet waits: set it to 5m or more, or pods with large images never start.`,
      ),
    );
  }
  if (selinux === "enforcing") {
    findings.push(
      warning(
        "selinux-enforcing",
        "SELinux is enforcing, which this product is not tested with: if something is denied, look at the audit log.",
      ),
    );
  }
  return findings;
};

const checks: readonly Check[] = [checkMounts, checkTables, checkMshv, checkGpuDrivers, checkLimits];
