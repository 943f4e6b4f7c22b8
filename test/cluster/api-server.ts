/**
 * A real etcd and kube-apiserver (and, on request, single controllers) on free loopback ports, without nodes: for what only
 * the API server decides, such as RBAC, admission policies and garbage collection.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { createWriteStream } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ApiAddress, apiClient } from "../../node-installer/kubernetes/api.ts";
import { kubernetesPrograms } from "../../tools/programs/pinned.ts";
import { toStderr } from "../../tools/programs/progress.ts";

export interface ApiServer {
  /** With the rights of system:masters. */
  admin: ApiAddress;
  /** Content of a kubeconfig for the same user. */
  kubeconfig: string;
  /** The address with another token, for a client with other rights. */
  withToken(token: string): Promise<ApiAddress>;
  close(): Promise<void>;
}

export async function startApiServer(options: { controllers: string[] }): Promise<ApiServer> {
  const programs = await kubernetesPrograms(toStderr);
  const directory = await mkdtemp(join(tmpdir(), "contrast-api-server-"));
  const inside = (name: string) => join(directory, name);
  const processes: ChildProcess[] = [];
  const start = (program: string, args: string[]): ChildProcess => {
    const log = createWriteStream(inside(`${program}.log`));
    const child = spawn(join(programs, program), args, { stdio: ["ignore", "pipe", "pipe"] });
    child.stdout.pipe(log);
    child.stderr.pipe(log);
    processes.push(child);
    return child;
  };
  const close = async () => {
    // In reverse order, because an API server without etcd takes a while to end.
    for (const child of processes.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await ended;
    }
    await rm(directory, { recursive: true, force: true });
  };

  try {
    const [etcd, peer, api] = (await Promise.all([freePort(), freePort(), freePort()])).map(String);
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    await writeFile(inside("service-accounts.key"), privateKey.export({ type: "pkcs1", format: "pem" }));
    const adminToken = randomBytes(16).toString("hex");
    await writeFile(inside("tokens.csv"), `${adminToken},admin,admin,system:masters\n`);

    start("etcd", [
      `--data-dir=${inside("etcd")}`,
      "--unsafe-no-fsync",
      "--log-level=warn",
      `--listen-client-urls=http://127.0.0.1:${etcd}`,
      `--advertise-client-urls=http://127.0.0.1:${etcd}`,
      `--listen-peer-urls=http://127.0.0.1:${peer}`,
    ]);
    const apiServer = start("kube-apiserver", [
      `--etcd-servers=http://127.0.0.1:${etcd}`,
      "--bind-address=127.0.0.1",
      `--secure-port=${api}`,
      `--cert-dir=${inside("certificates")}`,
      "--endpoint-reconciler-type=none",
      "--service-cluster-ip-range=10.96.0.0/16",
      "--authorization-mode=Node,RBAC",
      `--token-auth-file=${inside("tokens.csv")}`,
      "--service-account-issuer=https://kubernetes.default.svc",
      `--service-account-key-file=${inside("service-accounts.key")}`,
      `--service-account-signing-key-file=${inside("service-accounts.key")}`,
    ]);
    const withToken = async (token: string): Promise<ApiAddress> => {
      const tokenFile = inside(`token-${randomBytes(4).toString("hex")}`);
      await writeFile(tokenFile, token, { mode: 0o600 });
      const caFile = join(inside("certificates"), "apiserver.crt");
      return { baseUrl: `https://127.0.0.1:${api}`, tokenFile, caFile };
    };
    const admin = await withToken(adminToken);
    await until("the API server's /readyz", async () => {
      if (apiServer.exitCode !== null) throw new Error(await readFile(inside("kube-apiserver.log"), "utf8"));
      await apiClient(admin).get("/readyz?verbose=false");
      return true;
    });
    const kubeconfig = JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      clusters: [
        {
          name: "test",
          cluster: {
            server: admin.baseUrl,
            "certificate-authority-data": (await readFile(admin.caFile)).toString("base64"),
          },
        },
      ],
      users: [{ name: "admin", user: { token: adminToken } }],
      contexts: [{ name: "test", context: { cluster: "test", user: "admin" } }],
      "current-context": "test",
    });
    if (options.controllers.length > 0) {
      await writeFile(inside("kubeconfig"), kubeconfig, { mode: 0o600 });
      start("kube-controller-manager", [
        `--kubeconfig=${inside("kubeconfig")}`,
        `--controllers=${options.controllers.join(",")}`,
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        `--secure-port=${await freePort()}`,
        `--cert-dir=${inside("controller-certificates")}`,
      ]);
    }
    return { admin, kubeconfig, withToken, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Waits for a condition; the last error is the cause of the failure. */
export async function until(what: string, condition: () => Promise<boolean>, timeoutMs = 60_000): Promise<void> {
  const end = Date.now() + timeoutMs;
  for (let last: unknown; ; ) {
    try {
      if (await condition()) return;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`${what}: not within ${timeoutMs} ms`, { cause: last });
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
