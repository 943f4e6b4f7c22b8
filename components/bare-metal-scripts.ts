import { distributions } from "../runtime/distributions.ts";
import type { DistributionName, HostRequirements } from "../runtime/spec.ts";
import { tomlString } from "../runtime/toml.ts";
import { quote } from "./shell.ts";

/*
 * What is run on a host over SSH, in POSIX shell, because a host need not have anything else before it joins. Every script
 * can run again at any time. ROOT is empty on hosts; in tests it is a directory.
 *
 * A value reaches a script as a quoted word and in no other way: no here-document, whose end a content could name, and
 * nothing between the script's own quotes. Not base64 either, because reviewers read what is written.
 */

const preamble = `set -eu
root=\${ROOT:-}
failed=
problem() { echo "problem: $*" >&2; failed=yes; }
`;

const marker = "# written by contrast-runtime";

/**
 * Kernel modules, limits and sysctls that the runtime needs, now and after the next boot. What a host cannot have is
 * reported before anything is written to it.
 */
export function prepareScript(host: HostRequirements, distribution: DistributionName): string {
  const modules = kernelModules(host);
  const parameters: Record<string, string> =
    host.tee === "snp" ? { kvm_amd: "sev=1 sev_es=1 sev_snp=1" } : host.tee === "tdx" ? { kvm_intel: "tdx=1" } : {};
  const options = Object.entries(parameters).map(([name, values]) => `options ${name} ${values}`);
  const load = modules.map(
    (name) =>
      `  modprobe ${[name, ...(parameters[name] ? [parameters[name]] : [])].join(" ")} || problem "the kernel module ${name} cannot be loaded: install the kernel's extra modules, or another kernel"\n`,
  );
  return `${preamble}
# Each shim and its VMM hold several; some thirty pods use up the kernel's default of 128. A higher value is left alone.
instances=$(cat "$root/proc/sys/fs/inotify/max_user_instances" 2>/dev/null || echo 0)
[ "$instances" -ge 8192 ] || instances=8192
if [ -z "$root" ]; then
  sysctl --quiet --write "fs.inotify.max_user_instances=$instances" || problem "the sysctl fs.inotify.max_user_instances cannot be set to $instances"
${load.join("")}fi
[ -z "$failed" ] || exit 1
${write(files.sysctl, [quote(marker), '"fs.inotify.max_user_instances = $instances"'])}${
  modules.length > 0 ? write(files.modules, marked(modules)) : ""
}${options.length > 0 ? write(files.options, marked(options)) : ""}${limitFiles(distribution)
  // Guests' memory may be pinned, on behalf of containerd. Takes effect with its next restart.
  .map((path) => write(path, marked(["[Service]", "LimitMEMLOCK=infinity"])))
  .join("")}[ -n "$root" ] || systemctl daemon-reload
`;
}

/** Removes the files; what they set stays until the next boot, or the next restart of containerd. */
export function unprepareScript(distribution: DistributionName): string {
  const limits = limitFiles(distribution);
  return [
    `root=\${ROOT:-}`,
    ...[...Object.values(files), ...limits].map((file) => `rm -f ${onHost(file)}`),
    // The directory may hold somebody else's files, or not exist.
    ...limits.map((file) => `rmdir ${onHost(parentOf(file))} 2>/dev/null || true`),
    '[ -n "$root" ] || systemctl daemon-reload',
  ].join("; ");
}

const files = {
  sysctl: "/etc/sysctl.d/98-contrast-runtime.conf",
  modules: "/etc/modules-load.d/contrast-runtime.conf",
  options: "/etc/modprobe.d/contrast-runtime.conf",
};
const limitFiles = (distribution: DistributionName): string[] =>
  distributions[distribution].units.map((unit) => `/etc/systemd/system/${unit}.d/60-contrast-runtime.conf`);

/** Checks whether the host can start guests of this kind. Changes nothing; prints each problem on a line of its own. */
export function checkScript(host: HostRequirements): string {
  const checks = [
    host.virtualization === "kvm" ? device("/dev/kvm", "switch on virtualization (SVM or VT-x) in the firmware") : "",
    host.virtualization === "kvm" ? device("/dev/vhost-vsock", "load the kernel module vhost_vsock") : "",
    host.tee === "snp" ? snpChecks : "",
    host.tee === "tdx" ? tdxChecks : "",
    host.gpu ? gpuChecks : "",
  ];
  return `${preamble}
parameter() { cat "$root/sys/module/$1/parameters/$2" 2>/dev/null || echo absent; }
booted_with() { grep -Eq "(^| )$1( |$)" "$root/proc/cmdline"; }
${checks.join("")}[ -z "$failed" ] || exit 1
echo "host can start guests of this kind"
`;
}

/**
 * Runs the script that follows on standard input, unless the host's kubelet already belongs to a cluster. Its output may
 * contain the secret, and many places keep console output, so it stays on the host, readable by root.
 */
export function joinScript(distribution: DistributionName): string {
  return `for file in ${memberships[distribution].join(" ")}; do
  if [ -e "\${ROOT:-}$file" ]; then echo "already a member: $file is there"; exit 0; fi
done
log=/var/log/contrast-runtime/join.log
umask 077
mkdir -p "\${ROOT:-}\${log%/*}"
sh -eu -s >"\${ROOT:-}$log" 2>&1 || {
  echo "the join command failed with exit status $?; its output may contain the secret and is only on the host, in $log" >&2
  exit 1
}
echo "joined; the command's output is on the host, in $log"`;
}

/**
 * Makes the host's containerd trust the registry's CA, where its `config_path` is the usual /etc/containerd/certs.d.
 *
 * @param registry host[:port]
 * @param certificates in PEM, as certificates.ts writes it
 */
export function registryScript(registry: string, certificates: string): string {
  const { ca, hosts } = registryFiles(registry);
  const url = tomlString(`https://${registry}`);
  return `${preamble}
hosts=${quote(hosts)}
if [ -e "$root$hosts" ] && ! grep -Fqx ${quote(marker)} "$root$hosts"; then
  problem "$hosts already exists and is not ours: make it trust the registry's CA, and remove registry.ca from the stack"
  exit 1
fi
${write(ca, certificates.trimEnd().split("\n").map(quote))}${write(hosts, marked([`server = ${url}`, "", `[host.${url}]`, `  ca = ${tomlString(ca)}`]))}`;
}

/** Removes what `registryScript` wrote. */
export function unregistryScript(registry: string): string {
  const { ca, hosts } = registryFiles(registry);
  return `root=\${ROOT:-}; rm -f ${onHost(ca)} ${onHost(hosts)}; rmdir ${onHost(parentOf(ca))} 2>/dev/null || true`;
}

function registryFiles(registry: string) {
  const directory = `/etc/containerd/certs.d/${registry}`;
  return { ca: `${directory}/ca.crt`, hosts: `${directory}/hosts.toml` };
}

const onHost = (path: string): string => `"$root"${quote(path)}`;
const parentOf = (path: string): string => path.slice(0, path.lastIndexOf("/"));
const marked = (lines: string[]): string[] => [marker, ...lines].map(quote);

/** @param lines each as a word of the shell */
const write = (path: string, lines: string[]): string => `mkdir -p ${onHost(parentOf(path))}
printf '%s\\n' ${lines.join(" \\\n  ")} > ${onHost(`${path}.new`)}
mv ${onHost(`${path}.new`)} ${onHost(path)}
`;

const device = (path: string, remedy: string): string =>
  `[ -e "$root${path}" ] || problem "${path} is missing: ${remedy}"\n`;

/** Sources: Kata's and snphost's checks, and the kernel's iommu_snp_enable(). */
const snpChecks = `case $(parameter kvm_amd sev_snp) in
  Y|y|1) ;;
  absent) problem "the module kvm_amd is not loaded, or does not support SEV-SNP: an AMD EPYC 7003 or newer and Linux 6.11 or newer are needed" ;;
  *)
    if booted_with 'iommu=pt' || booted_with 'amd_iommu=off'; then
      problem "SEV-SNP is off because the IOMMU is off or passed through: remove iommu=pt and amd_iommu=off from the kernel's command line; needs a reboot"
    elif grep -q 'sev_snp=1' "$root/etc/modprobe.d/contrast-runtime.conf" 2>/dev/null; then
      problem "SEV-SNP is switched on for kvm_amd and not active yet: needs a reboot. If that does not help, enable SMEE, SNP memory coverage and SEV-SNP support in the firmware"
    else
      problem "SEV-SNP is off (kvm_amd.sev_snp is $(parameter kvm_amd sev_snp)): enable SMEE, SNP memory coverage and SEV-SNP support in the firmware; needs a reboot"
    fi ;;
esac
${device("/dev/sev", "load the kernel module ccp, and enable SEV-SNP in the firmware")}`;

/** Sources: canonical/tdx's checks and the kernel's messages. */
const tdxChecks = `if ! grep -qw tdx_host_platform "$root/proc/cpuinfo"; then
  problem "the processor or the firmware offers no TDX: enable TME, TME-MT, TDX, the SEAM loader and SGX in the firmware; needs a reboot"
elif [ "$(parameter kvm_intel tdx)" != Y ]; then
  if booted_with nohibernate && booted_with kvm_intel.tdx=1; then
    problem "TDX is not active although the kernel was asked for it: see 'dmesg | grep tdx' for the module's own reason"
  else
    problem "TDX is off: Linux 6.16 or newer and 'nohibernate kvm_intel.tdx=1' on its command line are needed; needs a reboot"
  fi
fi
`;

const gpuChecks = `set -- "$root"/sys/kernel/iommu_groups/*
[ -e "$1" ] || problem "there is no IOMMU group: enable the IOMMU in the firmware and the kernel"
`;

const kernelModules = ({ virtualization, tee, gpu }: HostRequirements): string[] => {
  if (virtualization !== "kvm") return [];
  const vendor = tee === "snp" ? ["ccp", "kvm_amd"] : tee === "tdx" ? ["kvm_intel"] : [];
  return ["kvm", ...vendor, "vhost", "vhost_net", "vhost_vsock", ...(gpu ? ["vfio_pci"] : [])];
};

/** A file that a distribution's kubelet has once it belongs to a cluster. */
const memberships: Record<DistributionName, string[]> = {
  containerd: ["/etc/kubernetes/kubelet.conf"],
  aks: ["/var/lib/kubelet/kubeconfig"],
  k3s: ["/var/lib/rancher/k3s/agent/kubelet.kubeconfig"],
  rke2: ["/var/lib/rancher/rke2/agent/kubelet.kubeconfig"],
  k0s: ["/var/lib/k0s/kubelet.conf"],
  microk8s: ["/var/snap/microk8s/current/credentials/kubelet.config"],
};
