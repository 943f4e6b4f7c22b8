import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { check } from "../process/run.ts";
import { type ClusterLayout, serviceAddress } from "./layout.ts";

/** Validity of the cluster's own authority and its certificates: ten years, because a local cluster does not rotate them. */
const days = "3650";
const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

export const pkiDirectory = (cluster: ClusterLayout) => join(cluster.directory, "pki");
/** The certificate of the cluster's own authority. */
export const authorityFile = (cluster: ClusterLayout) => join(pkiDirectory(cluster), "ca.crt");
export const kubeconfigFile = (cluster: ClusterLayout, user: string) =>
  join(pkiDirectory(cluster), `${user}.kubeconfig`);

const users = {
  admin: "/O=system:masters/CN=admin",
  "controller-manager": "/CN=system:kube-controller-manager",
  scheduler: "/CN=system:kube-scheduler",
};

/** Makes the authority, certificates and kubeconfigs once: all of them or, if interrupted, none. */
export async function ensureCertificates(cluster: ClusterLayout): Promise<void> {
  const directory = pkiDirectory(cluster);
  if (existsSync(directory)) return;
  const fresh = `${directory}.new`;
  await rm(fresh, { recursive: true, force: true });
  await mkdir(fresh, { recursive: true, mode: 0o700 });
  const authority = ["req", "-x509", ...newKey, "-days", days, "-subj", `/CN=${cluster.name}`];
  await check("openssl", [...authority, "-keyout", join(fresh, "ca.key"), "-out", join(fresh, "ca.crt")]);
  await check("openssl", ["genrsa", "-out", join(fresh, "service-accounts.key"), "2048"]);
  const names = ["kubernetes.default.svc", "kubernetes.default", "kubernetes", "localhost"].map(
    (name) => `DNS:${name}`,
  );
  const addresses = [cluster.address, serviceAddress, "127.0.0.1"].map((address) => `IP:${address}`);
  await Promise.all([
    certificate(fresh, fresh, "apiserver", "/CN=kube-apiserver", [...names, ...addresses]),
    certificate(fresh, fresh, "apiserver-to-kubelet", "/O=system:masters/CN=kube-apiserver"),
    ...Object.entries(users).map(([user, subject]) => credentials(cluster, fresh, fresh, user, subject)),
  ]);
  await rename(fresh, directory);
}

/** Writes a node's own certificate and kubeconfig into the directory: node.crt, node.key, node.kubeconfig. */
export async function nodeCredentials(cluster: ClusterLayout, directory: string, node: string): Promise<void> {
  await credentials(cluster, pkiDirectory(cluster), directory, "node", `/O=system:nodes/CN=system:node:${node}`);
}

async function credentials(
  cluster: ClusterLayout,
  authority: string,
  directory: string,
  user: string,
  subject: string,
): Promise<void> {
  await certificate(authority, directory, user, subject);
  const read = async (file: string) => (await readFile(file)).toString("base64");
  const config = {
    apiVersion: "v1",
    kind: "Config",
    "current-context": cluster.name,
    contexts: [{ name: cluster.name, context: { cluster: cluster.name, user } }],
    clusters: [
      {
        name: cluster.name,
        cluster: { server: cluster.server, "certificate-authority-data": await read(join(authority, "ca.crt")) },
      },
    ],
    users: [
      {
        name: user,
        user: {
          "client-certificate-data": await read(join(directory, `${user}.crt`)),
          "client-key-data": await read(join(directory, `${user}.key`)),
        },
      },
    ],
  };
  // JSON is YAML, and needs no quoting rules.
  await writeFile(join(directory, `${user}.kubeconfig`), `${JSON.stringify(config, undefined, 2)}\n`, { mode: 0o600 });
}

async function certificate(
  authority: string,
  directory: string,
  name: string,
  subject: string,
  alternativeNames: string[] = [],
): Promise<void> {
  const file = (extension: string) => join(directory, `${name}.${extension}`);
  await check("openssl", ["req", ...newKey, "-subj", subject, "-keyout", file("key"), "-out", file("csr")]);
  const extensions = ["basicConstraints=CA:FALSE", "extendedKeyUsage=serverAuth,clientAuth"];
  if (alternativeNames.length) extensions.push(`subjectAltName=${alternativeNames.join(",")}`);
  await writeFile(file("ext"), `${extensions.join("\n")}\n`);
  const signing = ["-CA", join(authority, "ca.crt"), "-CAkey", join(authority, "ca.key"), "-days", days];
  // A random serial number, so that certificates may be made at the same time.
  const serial = `0x${(await check("openssl", ["rand", "-hex", "12"])).trim()}`;
  const files = ["-in", file("csr"), "-out", file("crt"), "-extfile", file("ext")];
  await check("openssl", ["x509", "-req", "-set_serial", serial, ...signing, ...files]);
  await rm(file("csr"));
  await rm(file("ext"));
}
