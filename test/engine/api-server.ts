/** A real Kubernetes API with its controllers but without nodes, on free loopback ports, for one test file. */
import { type ChildProcess, spawn } from "node:child_process";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { kubernetesPrograms } from "../../tools/programs/pinned.ts";
import { toStderr } from "../../tools/programs/progress.ts";
import { check } from "../../tools/programs/run.ts";

export interface ApiServer {
  kubeconfig: string;
  kubectl(...args: string[]): Promise<string>;
  stop(): Promise<void>;
}

export async function startApiServer(): Promise<ApiServer> {
  const programs = await kubernetesPrograms(toStderr);
  const directory = await mkdtemp(join(tmpdir(), "contrast-api-"));
  const [client, peer, port] = [await freePort(), await freePort(), await freePort()];
  const token = randomBytes(16).toString("hex");
  const file = (name: string) => join(directory, name);
  const keys = generateKeyPairSync("rsa", { modulusLength: 2048 });
  await writeFile(file("accounts.key"), keys.privateKey.export({ type: "pkcs8", format: "pem" }));
  await writeFile(file("tokens.csv"), `${token},admin,admin,system:masters\n`);
  await mkdir(file("certificates"));
  const kubeconfig = JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "test", cluster: { server: `https://127.0.0.1:${port}`, "insecure-skip-tls-verify": true } }],
    users: [{ name: "test", user: { token } }],
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    "current-context": "test",
  });
  await writeFile(file("kubeconfig"), kubeconfig);

  const children: ChildProcess[] = [];
  // The programs end with this process, however it ends.
  const start = (name: string, ...args: string[]) => {
    const child = spawn("setpriv", ["--pdeathsig", "KILL", join(programs, name), ...args], { stdio: "ignore" });
    children.push(child);
    return child;
  };
  const stop = async () => {
    for (const child of children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill("SIGKILL");
      await once(child, "exit");
    }
    await rm(directory, { recursive: true, force: true });
  };
  start(
    "etcd",
    `--data-dir=${file("etcd")}`,
    `--listen-client-urls=http://127.0.0.1:${client}`,
    `--advertise-client-urls=http://127.0.0.1:${client}`,
    `--listen-peer-urls=http://127.0.0.1:${peer}`,
    "--unsafe-no-fsync",
  );
  const server = start(
    "kube-apiserver",
    `--etcd-servers=http://127.0.0.1:${client}`,
    "--bind-address=127.0.0.1",
    `--secure-port=${port}`,
    `--cert-dir=${file("certificates")}`,
    `--token-auth-file=${file("tokens.csv")}`,
    `--service-account-key-file=${file("accounts.key")}`,
    `--service-account-signing-key-file=${file("accounts.key")}`,
    "--service-account-issuer=https://kubernetes.default.svc",
    "--service-cluster-ip-range=10.96.0.0/16",
    "--authorization-mode=RBAC",
    "--disable-admission-plugins=ServiceAccount",
  );
  const kubectl = (...args: string[]) =>
    check(join(programs, "kubectl"), ["--kubeconfig", file("kubeconfig"), ...args], { timeoutMs: 60_000 });
  try {
    await untilReady(() => kubectl("get", "--raw", "/readyz"), server);
  } catch (error) {
    await stop();
    throw error;
  }
  start(
    "kube-controller-manager",
    `--kubeconfig=${file("kubeconfig")}`,
    "--leader-elect=false",
    "--secure-port=0",
    "--controllers=*,-bootstrap-signer-controller,-token-cleaner-controller",
  );
  return { kubeconfig, kubectl, stop };
}

/** Asks until there is an answer; the test has a time limit. */
async function untilReady(ask: () => Promise<unknown>, server: ChildProcess): Promise<void> {
  for (;;) {
    try {
      await ask();
      return;
    } catch (error) {
      if (server.exitCode !== null) throw error;
    }
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
