import { readFileSync } from "node:fs";
import { moduleOptionsFile } from "../node-installer/requirements/host-facts.ts";
import { distributions } from "../runtime/distributions.ts";
import { quote } from "../runtime/shell.ts";
import type { DistributionName, HostRequirements } from "../runtime/spec.ts";
import { tomlString } from "../runtime/toml.ts";

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

const join = readFileSync(new URL("join.sh", import.meta.url), "utf8").trimEnd();

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
  options: moduleOptionsFile,
};
const limitFiles = (distribution: DistributionName): string[] =>
  distributions[distribution].units.map((unit) => `/etc/systemd/system/${unit}.d/60-contrast-runtime.conf`);

/**
 * Runs the script that follows on standard input, unless the host's kubelet already belongs to a cluster. Its output may
 * contain the secret, and many places keep console output, so it stays on the host, readable by root.
 */
export function joinScript(distribution: DistributionName): string {
  return `for file in ${memberships[distribution].join(" ")}; do
  if [ -e "\${ROOT:-}$file" ]; then echo "already a member: $file is there"; exit 0; fi
done
${join}`;
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
