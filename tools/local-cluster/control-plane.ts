import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { kubeconfigFile, pkiDirectory } from "./certificates.ts";
import { type ClusterLayout, serviceRange } from "./layout.ts";
import type { Unit } from "./units.ts";
import { vmDevices } from "./vm-devices.ts";

export interface ControlPlanePrograms {
  /** Directory of the Kubernetes programs. */
  kubernetes: string;
  registry: string;
  /** The nodes' tree. The registry, from the same Debian release, runs with its C library. */
  tree: string;
}

/** Where Debian keeps its libraries, also in trees. */
const libraries = "lib/x86_64-linux-gnu";

/** What must run before the API server answers; the API server last. */
export function serverUnits(cluster: ClusterLayout, programs: ControlPlanePrograms): Unit[] {
  const pki = pkiDirectory(cluster);
  const flags = (values: Record<string, string>) => Object.entries(values).map(([key, value]) => `--${key}=${value}`);
  return [
    {
      name: "etcd",
      argv: [
        join(programs.kubernetes, "etcd"),
        ...flags({
          "data-dir": join(cluster.directory, "etcd"),
          "log-level": "warn",
          "listen-client-urls": "http://127.0.0.1:2379",
          "advertise-client-urls": "http://127.0.0.1:2379",
          "listen-peer-urls": "http://127.0.0.1:2380",
        }),
      ],
    },
    registryUnit(cluster, programs, "registry"),
    ...(vmDevices().length > 0 ? [registryUnit(cluster, programs, "guest-registry")] : []),
    {
      name: "apiserver",
      argv: [
        join(programs.kubernetes, "kube-apiserver"),
        ...flags({
          "etcd-servers": "http://127.0.0.1:2379",
          "bind-address": "0.0.0.0",
          "secure-port": "443",
          "advertise-address": cluster.address,
          "service-cluster-ip-range": serviceRange,
          "allow-privileged": "true",
          "authorization-mode": "Node,RBAC",
          "enable-admission-plugins": "NodeRestriction",
          // New machines join as kubeadm's do.
          "enable-bootstrap-token-auth": "true",
          "client-ca-file": join(pki, "ca.crt"),
          "tls-cert-file": join(pki, "apiserver.crt"),
          "tls-private-key-file": join(pki, "apiserver.key"),
          "kubelet-client-certificate": join(pki, "apiserver-to-kubelet.crt"),
          "kubelet-client-key": join(pki, "apiserver-to-kubelet.key"),
          // No DNS server knows the nodes' names.
          "kubelet-preferred-address-types": "InternalIP",
          "service-account-key-file": join(pki, "service-accounts.key"),
          "service-account-signing-key-file": join(pki, "service-accounts.key"),
          "service-account-issuer": "https://kubernetes.default.svc",
        }),
      ],
    },
  ];
}

/** One is for the nodes, and one for guests, where the machine can start any. Both serve the same directory. */
type RegistryName = "registry" | "guest-registry";

const registryUnit = (cluster: ClusterLayout, programs: ControlPlanePrograms, name: RegistryName): Unit => ({
  name,
  argv: [
    // Not the tree's /lib64: that link is absolute and leads to this machine's own loader.
    join(programs.tree, libraries, "ld-linux-x86-64.so.2"),
    "--library-path",
    join(programs.tree, libraries),
    programs.registry,
    "serve",
    registryConfigurationFile(cluster, name),
  ],
});

/** Units that give up unless the API server already answers. */
export function controllerUnits(cluster: ClusterLayout, programs: ControlPlanePrograms): Unit[] {
  const pki = pkiDirectory(cluster);
  return [
    {
      name: "controller-manager",
      argv: [
        join(programs.kubernetes, "kube-controller-manager"),
        `--kubeconfig=${kubeconfigFile(cluster, "controller-manager")}`,
        `--service-account-private-key-file=${join(pki, "service-accounts.key")}`,
        `--root-ca-file=${join(pki, "ca.crt")}`,
        `--cluster-signing-cert-file=${join(pki, "ca.crt")}`,
        `--cluster-signing-key-file=${join(pki, "ca.key")}`,
        "--controllers=*,bootstrap-signer-controller,token-cleaner-controller",
        "--use-service-account-credentials",
        "--leader-elect=false",
      ],
    },
    {
      name: "scheduler",
      argv: [
        join(programs.kubernetes, "kube-scheduler"),
        `--kubeconfig=${kubeconfigFile(cluster, "scheduler")}`,
        "--leader-elect=false",
      ],
    },
  ];
}

const registryConfigurationFile = (cluster: ClusterLayout, name: RegistryName) =>
  join(cluster.directory, `${name}.yaml`);

export async function writeRegistryConfiguration(cluster: ClusterLayout): Promise<void> {
  const storage = join(cluster.directory, "registry");
  await mkdir(storage, { recursive: true });
  // The API server is at the same address, so its certificate will do.
  const tls = {
    certificate: join(pkiDirectory(cluster), "apiserver.crt"),
    key: join(pkiDirectory(cluster), "apiserver.key"),
  };
  const http = { registry: { addr: cluster.registry }, "guest-registry": { addr: cluster.guestRegistry, tls } };
  for (const name of ["registry", "guest-registry"] as const) {
    const configuration = {
      version: "0.1",
      log: { level: "warn" },
      storage: { filesystem: { rootdirectory: storage }, delete: { enabled: true } },
      http: http[name],
    };
    await writeFile(registryConfigurationFile(cluster, name), JSON.stringify(configuration, undefined, 2));
  }
}
