import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import * as z from "zod";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { isPrivate } from "../../runtime/web-address.ts";
import { run } from "../process/run.ts";

export interface Credentials {
  username?: string;
  password?: string;
  /** A refresh token instead of a password. */
  identityToken?: string;
}

/** The parts of Docker's config.json that hold credentials, or name the program that does. */
const dockerConfigSchema = z.object({
  auths: z
    .record(z.string(), z.object({ auth: z.string().optional(), identitytoken: z.string().optional() }))
    .optional(),
  credHelpers: z.record(z.string(), z.string()).optional(),
  credsStore: z.string().optional(),
});

/**
 * The user's credentials for a registry: REGISTRY_USERNAME and REGISTRY_PASSWORD, else what `docker login` (or podman,
 * skopeo, oras with the same file) left. Undefined where there are none.
 *
 * @throws Refusal where stored ones would go over the network without TLS: what was stored for a name is not meant for
 *   whoever answers to it there. Those of the environment are given for this very command.
 */
export async function registryCredentials(origin: URL, env = process.env): Promise<Credentials | undefined> {
  const { host } = origin;
  const { REGISTRY_USERNAME: username, REGISTRY_PASSWORD: password } = env;
  if (username && password === undefined)
    throw new Refusal(
      "registry-password",
      `REGISTRY_USERNAME is "${username}", but REGISTRY_PASSWORD is not set. Set it, or unset both and log in with docker login.`,
    );
  if (username && password !== undefined) return { username, password };
  const file = join(env.DOCKER_CONFIG || join(homedir(), ".docker"), "config.json");
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch {
    return undefined;
  }
  const parsed = dockerConfigSchema.safeParse(parseJson(text));
  if (!parsed.success)
    throw new Refusal("docker-config", `${file} is no valid Docker configuration: ${z.prettifyError(parsed.error)}`);
  const { auths = {}, credHelpers = {}, credsStore } = parsed.data;
  const names =
    host === "registry-1.docker.io" ? ["https://index.docker.io/v1/", "docker.io"] : [host, `https://${host}`];
  for (const name of names) {
    if (!isPrivate(origin) && (name in credHelpers || name in auths))
      throw new Refusal(
        "login-without-tls",
        `${file} has a login for ${host}, which is not sent to ${origin.origin}: others could read it there. Use https, or give REGISTRY_USERNAME and REGISTRY_PASSWORD for this command.`,
      );
    const helper = credHelpers[name] ?? credsStore;
    if (helper && (credHelpers[name] || name in auths)) return await fromHelper(helper, name);
    const entry = auths[name];
    if (entry?.identitytoken) return { identityToken: entry.identitytoken };
    if (entry?.auth) {
      const [username = "", password = ""] = Buffer.from(entry.auth, "base64").toString().split(/:(.*)/s);
      return { username, password };
    }
  }
  return undefined;
}

const helperAnswer = z.object({ Username: z.string(), Secret: z.string() });

async function fromHelper(helper: string, name: string): Promise<Credentials> {
  const program = `docker-credential-${helper}`;
  const { code, stdout, stderr } = await run(program, ["get"], { input: name });
  const answer = helperAnswer.safeParse(parseJson(stdout));
  // Helpers complain on standard output, but what one prints there when it succeeds may be the secret.
  const said = printable(stderr || (code === 0 ? "" : stdout), 300);
  if (code !== 0 || !answer.success)
    throw new Refusal(
      "credential-helper",
      `${program} gave no credentials for ${name}: ${said || `exit ${code}, and no answer that Docker's protocol knows`}. Log in again.`,
    );
  const { Username, Secret } = answer.data;
  return Username === "<token>" ? { identityToken: Secret } : { username: Username, password: Secret };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
