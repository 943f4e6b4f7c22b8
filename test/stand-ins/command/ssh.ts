import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as z from "zod";

const endpoint = {
  host: z.string(),
  user: z.string().optional(),
  port: z.number().optional(),
  privateKey: z.string().optional(),
  privateKeyPassword: z.string().optional(),
  password: z.string().optional(),
  hostKey: z.string().optional(),
  agentSocketPath: z.string().optional(),
  dialErrorLimit: z.number().optional(),
  perDialTimeout: z.number().optional(),
};
export const connection = z.strictObject({ ...endpoint, proxy: z.strictObject(endpoint).optional() });
export type Connection = z.infer<typeof connection>;

export interface SshCommand {
  /** To be followed by the remote command. */
  words: string[];
  environment: Record<string, string>;
  /** What ssh itself reports about the connection, apart from the command's output. */
  objection(): Promise<string | undefined>;
  cleanUp(): Promise<void>;
}

/**
 * The system's ssh for this connection. As in the official plugin, the host key is checked only if the connection names one.
 *
 * @param environment sent to the server, which must accept it (`AcceptEnv`)
 */
export async function sshCommand(
  { host, user = "root", port = 22, ...rest }: Connection,
  environment: Record<string, string>,
): Promise<SshCommand> {
  const unsupported = (["password", "privateKeyPassword", "proxy"] as const).filter((key) => rest[key] !== undefined);
  if (unsupported.length > 0) throw new Error(`connection.${unsupported[0]} is not supported by this stand-in`);
  const agent = rest.agentSocketPath ?? process.env.SSH_AUTH_SOCK;
  if (agent && !existsSync(agent)) throw new Error(`dial unix ${agent}: connect: no such file or directory`);
  const directory = await mkdtemp(join(tmpdir(), "ssh-"));
  const options = ["BatchMode=yes", "LogLevel=ERROR", `ConnectTimeout=${rest.perDialTimeout || 15}`];
  const attempts = rest.dialErrorLimit ?? 10;
  options.push(`ConnectionAttempts=${attempts < 0 ? 1_000_000 : Math.max(attempts, 1)}`);
  const knownHosts = join(directory, "known_hosts");
  if (rest.hostKey) {
    const [type, key] = rest.hostKey.trim().split(/\s+/);
    await writeFile(knownHosts, `[${host}]:${port} ${type} ${key}\n${host} ${type} ${key}\n`);
    options.push("StrictHostKeyChecking=yes", `UserKnownHostsFile=${knownHosts}`, `HostKeyAlgorithms=${type}`);
    options.push("GlobalKnownHostsFile=/dev/null");
  } else {
    options.push("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null");
  }
  if (rest.privateKey) {
    const file = join(directory, "key");
    await writeFile(file, `${rest.privateKey.trimEnd()}\n`, { mode: 0o600 });
    options.push(`IdentityFile=${file}`, "IdentitiesOnly=yes");
  }
  options.push(...Object.keys(environment).map((name) => `SendEnv=${name}`));
  const log = join(directory, "log");
  return {
    words: [
      "ssh",
      "-T",
      "-E",
      log,
      "-F",
      "/dev/null",
      ...options.flatMap((o) => ["-o", o]),
      "-p",
      `${port}`,
      "-l",
      user,
      "--",
      host,
    ],
    environment: rest.agentSocketPath ? { ...environment, SSH_AUTH_SOCK: rest.agentSocketPath } : environment,
    async objection() {
      const said = (await readFile(log, "utf8").catch(() => "")).trim();
      // As unhelpful as in the official plugin.
      if (said.includes("Host key verification failed"))
        return `after ${attempts} failed attempts: ssh: handshake failed: ssh: host key mismatch`;
      return said === "" ? undefined : `${host}:${port} cannot be reached as ${user}: ${said.split("\n").at(-1)}`;
    },
    cleanUp: () => rm(directory, { recursive: true, force: true }),
  };
}
