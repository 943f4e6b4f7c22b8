import type { Host } from "../host/host.ts";

/**
 * Where kubelets get their request timeout from, in ascending precedence: flags override files, drop-ins override the file
 * they extend. `document` files are KubeletConfiguration in YAML or JSON, `flags` files hold command-line flags in any
 * form (systemd environment files, MicroK8s' args, the `kubelet-arg` lists of k3s and RKE2).
 */
const sources: readonly { path: string; kind: "document" | "flags" }[] = [
  { path: "/var/lib/kubelet/config.yaml", kind: "document" },
  { path: "/var/lib/k0s/kubelet-config.yaml", kind: "document" },
  { path: "/etc/kubernetes/kubelet/config.json", kind: "document" },
  { path: "/etc/kubernetes/kubelet.conf.d", kind: "document" },
  { path: "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d", kind: "document" },
  { path: "/var/lib/rancher/rke2/agent/etc/kubelet.conf.d", kind: "document" },
  { path: "/etc/default/kubeletconfig.json", kind: "document" },
  { path: "/var/lib/kubelet/kubeadm-flags.env", kind: "flags" },
  { path: "/etc/default/kubelet", kind: "flags" },
  { path: "/etc/sysconfig/kubelet", kind: "flags" },
  { path: "/etc/rancher/k3s/config.yaml", kind: "flags" },
  { path: "/etc/rancher/rke2/config.yaml", kind: "flags" },
  { path: "/var/snap/microk8s/current/args/kubelet", kind: "flags" },
];

const patterns = {
  // A top-level key with a duration looks the same in YAML and JSON, so no parser is needed.
  document: /^[ \t]*"?runtimeRequestTimeout"?[ \t]*:\s*["']?([0-9a-zµ.]{1,40})/m,
  flags: /runtime-request-timeout[=\s]+["']?([0-9a-zµ.]{1,40})/,
};

/** Of a file of the kubelet's nothing but its request timeout; undefined: no such file. */
export function outlineKubelet(path: string, text: string): string | undefined {
  const source = sources.find((one) => path === one.path || path.startsWith(`${one.path}/`));
  if (source === undefined) return undefined;
  const [, duration] = patterns[source.kind].exec(text) ?? [];
  if (duration === undefined || goDuration(duration) === undefined) return "";
  return source.kind === "document" ? `runtimeRequestTimeout: ${duration}\n` : `runtime-request-timeout=${duration}\n`;
}

export interface RequestTimeout {
  seconds: number;
  /** The file that sets it. */
  path: string;
}

/** `runtimeRequestTimeout` as kubelet's files set it; undefined if none does: kubelet's default is 2 minutes. */
export async function readRequestTimeout(host: Host): Promise<RequestTimeout | undefined> {
  let found: RequestTimeout | undefined;
  for (const { path, kind } of sources) {
    for (const file of await filesAt(host, path)) {
      const [, duration] = patterns[kind].exec((await host.readFile(file)).toString("utf8")) ?? [];
      const seconds = duration === undefined ? undefined : goDuration(duration);
      // Zero stands for the default.
      if (seconds !== undefined && seconds > 0) found = { seconds, path: file };
    }
  }
  return found;
}

async function filesAt(host: Host, path: string): Promise<string[]> {
  const stat = await host.stat(path);
  if (stat?.kind === "file") return [path];
  if (stat?.kind !== "directory") return [];
  const names = (await host.readDirectory(path)).filter((name) => name.endsWith(".conf"));
  return names.toSorted().map((name) => `${path}/${name}`);
}

const units: Record<string, number> = { h: 3600, m: 60, s: 1, ms: 1e-3, us: 1e-6, µs: 1e-6, ns: 1e-9 };

/** A Go duration ("5m0s", "1.5h") in seconds; undefined if the text is not one. */
export function goDuration(text: string): number | undefined {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)/g)];
  if (parts.length === 0 || parts.map(([part]) => part).join("") !== text) return undefined;
  return parts.reduce((sum, [, count, unit]) => sum + Number(count) * (units[unit ?? ""] ?? 0), 0);
}
