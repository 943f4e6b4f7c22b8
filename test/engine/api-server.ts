/**
 * A real Kubernetes API with its controllers but without nodes, on free loopback ports: for what a provider does with it,
 * and for what only the API server decides, such as RBAC, admission policies and garbage collection.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ApiAddress, apiClient } from "../../node-installer/kubernetes/api.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { check } from "../../tools/process/run.ts";
import { kubernetesPrograms } from "../../tools/programs/pinned.ts";
import { until } from "../until.ts";

export interface ApiServer {
  /** With the rights of system:masters, as the two below. */
  admin: ApiAddress;
  /** Content of a kubeconfig. */
  kubeconfig: string;
  /** Standard output of a kubectl that must succeed. */
  kubectl(...args: string[]): Promise<string>;
  /** The address with another token, for a client with other rights. */
  withToken(token: string): Promise<ApiAddress>;
  stop(): Promise<void>;
}

/** All that can do something without nodes. */
const everyController = ["*", "-bootstrap-signer-controller", "-token-cleaner-controller"];

interface ApiServerOptions {
  /** Only these: others would act on nodes that a test makes up. */
  controllers?: string[];
  /** Configurations of admission plugins, by name. */
  admission?: Record<string, object>;
}

export async function startApiServer(options: ApiServerOptions = {}): Promise<ApiServer> {
  const { controllers = everyController, admission = {} } = options;
  const programs = await kubernetesPrograms(toStderr);
  const directory = await mkdtemp(join(tmpdir(), "contrast-api-"));
  const inside = (name: string) => join(directory, name);
  const children: ChildProcess[] = [];
  // The programs end with this process, however it ends.
  const start = async (name: string, ...args: string[]): Promise<ChildProcess> => {
    const log = await open(inside(`${name}.log`), "w");
    const stdio = ["ignore" as const, log.fd, log.fd];
    const child = spawn("setpriv", ["--pdeathsig", "KILL", join(programs, name), ...args], { stdio });
    children.push(child);
    await log.close();
    return child;
  };
  const stop = async () => {
    // In reverse order, because an API server without etcd takes a while to end.
    for (const child of children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill("SIGKILL");
      await once(child, "exit");
    }
    await rm(directory, { recursive: true, force: true });
  };

  try {
    const [client, peer, port] = [await freePort(), await freePort(), await freePort()];
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    await writeFile(inside("accounts.key"), privateKey.export({ type: "pkcs8", format: "pem" }));
    const adminToken = randomBytes(16).toString("hex");
    await writeFile(inside("tokens.csv"), `${adminToken},admin,admin,system:masters\n`);
    await start(
      "etcd",
      `--data-dir=${inside("etcd")}`,
      "--unsafe-no-fsync",
      "--log-level=warn",
      `--listen-client-urls=http://127.0.0.1:${client}`,
      `--advertise-client-urls=http://127.0.0.1:${client}`,
      `--listen-peer-urls=http://127.0.0.1:${peer}`,
    );
    const plugins = Object.entries(admission).map(([name, configuration]) => ({ name, configuration }));
    const configuration = { apiVersion: "apiserver.config.k8s.io/v1", kind: "AdmissionConfiguration", plugins };
    await writeFile(inside("admission.json"), JSON.stringify(configuration));
    const server = await start(
      "kube-apiserver",
      `--admission-control-config-file=${inside("admission.json")}`,
      `--etcd-servers=http://127.0.0.1:${client}`,
      "--bind-address=127.0.0.1",
      `--secure-port=${port}`,
      `--cert-dir=${inside("certificates")}`,
      "--endpoint-reconciler-type=none",
      `--token-auth-file=${inside("tokens.csv")}`,
      `--service-account-key-file=${inside("accounts.key")}`,
      `--service-account-signing-key-file=${inside("accounts.key")}`,
      "--service-account-issuer=https://kubernetes.default.svc",
      "--service-cluster-ip-range=10.96.0.0/16",
      "--authorization-mode=Node,RBAC",
      // Pods would have to wait for their namespace's ServiceAccount.
      "--disable-admission-plugins=ServiceAccount",
    );

    const baseUrl = `https://127.0.0.1:${port}`;
    const caFile = join(inside("certificates"), "apiserver.crt");
    const withToken = async (token: string): Promise<ApiAddress> => {
      const tokenFile = inside(`token-${randomBytes(4).toString("hex")}`);
      await writeFile(tokenFile, token, { mode: 0o600 });
      return { baseUrl, tokenFile, caFile };
    };
    const admin = await withToken(adminToken);
    const state = await until(
      "the API server's /readyz",
      async () => {
        if (server.exitCode !== null) return "ended";
        await apiClient(admin).get("/readyz?verbose=false");
        return "ready";
      },
      300_000,
    );
    if (state === "ended")
      throw new Error(`the API server ended:\n${await readFile(inside("kube-apiserver.log"), "utf8")}`);

    const authority = (await readFile(caFile)).toString("base64");
    const kubeconfig = JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "test", cluster: { server: baseUrl, "certificate-authority-data": authority } }],
      users: [{ name: "test", user: { token: adminToken } }],
      contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
      "current-context": "test",
    });
    await writeFile(inside("kubeconfig"), kubeconfig, { mode: 0o600 });
    await start(
      "kube-controller-manager",
      `--kubeconfig=${inside("kubeconfig")}`,
      `--controllers=${controllers.join(",")}`,
      "--leader-elect=false",
      "--secure-port=0",
    );
    // What it learns of the API goes with the server, and not into the user's home.
    const own = ["--kubeconfig", inside("kubeconfig"), "--cache-dir", inside("kubectl")];
    const kubectl = (...args: string[]) => check(join(programs, "kubectl"), [...own, ...args], { timeoutMs: 60_000 });
    return { admin, kubeconfig, kubectl, withToken, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
  return address.port;
}
