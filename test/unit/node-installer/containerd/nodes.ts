import { Refusal } from "../../../../runtime/refusal.ts";
import { MemoryHost } from "../../../fakes/memory-host.ts";

/** Nodes of each distribution as files: units, configuration, binary. The programs answer like containerd and systemctl. */

const unit = (execStart: string, killMode = "process"): string =>
  `[Unit]\nDescription=x\n[Service]\nType=notify\nExecStart=${execStart}\nKillMode=${killMode}\n[Install]\nWantedBy=multi-user.target\n`;

const v2 = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\nruntime_type = "x"\n';
const v3 = v2.replace("2", "3").replace("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime");

export const trees: Record<string, Record<string, string>> = {
  containerd: {
    "/usr/lib/systemd/system/containerd.service": unit("/usr/bin/containerd"),
    "/etc/containerd/config.toml": v2,
  },
  aks: {
    "/opt/azure/containers/provision.sh": "",
    "/etc/systemd/system/containerd.service": unit("/usr/bin/containerd"),
    "/etc/containerd/config.toml": v2,
  },
  k3s: {
    "/etc/systemd/system/k3s.service": unit("/usr/local/bin/k3s server"),
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml": v3,
  },
  rke2: {
    "/usr/local/lib/systemd/system/rke2-agent.service": unit("/usr/local/bin/rke2 agent"),
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml": v2,
  },
  k0s: {
    "/etc/systemd/system/k0sworker.service": unit("/usr/local/bin/k0s worker"),
    "/etc/k0s/containerd.toml": '# k0s_managed=true\nversion = 2\nimports = ["/run/k0s/containerd-cri.toml"]\n',
    "/run/k0s/containerd-cri.toml": v2,
  },
  microk8s: {
    "/etc/systemd/system/snap.microk8s.daemon-containerd.service": unit("/usr/bin/snap run microk8s.daemon-containerd"),
    // biome-ignore lint/suspicious/noTemplateCurlyInString: as MicroK8s writes it
    "/var/snap/microk8s/current/args/containerd-template.toml": v2.replace('"x"', '"${RUNTIME_TYPE}"'),
    "/var/snap/microk8s/current/args/containerd.toml": v2,
  },
};

export interface NodeOptions {
  version?: string;
  files?: Record<string, string>;
  without?: string[];
}

export function nodeOf(name: string, { version = "2.2.9", files = {}, without = [] }: NodeOptions = {}): MemoryHost {
  const tree = Object.fromEntries(
    Object.entries({ ...trees[name], ...files }).filter(([path]) => !without.includes(path)),
  );
  return new MemoryHost({
    files: { "/run/systemd/system/.keep": "", ...tree },
    programs: { containerd: () => ({ stdout: `containerd github.com/containerd/containerd v${version} abc\n` }) },
  });
}

export { unit as unitText, v2, v3 };

export async function refusal(promise: Promise<unknown>): Promise<Refusal> {
  const error = await promise.then(
    () => new Error("nothing was refused"),
    (reason: unknown) => reason,
  );
  if (error instanceof Refusal) return error;
  throw error;
}

export const k3sFolder = "/var/lib/rancher/k3s/agent/etc/containerd";
export const importing = (folder: string): string => `imports = ["${folder}/*.toml"]\n${v3}`;
