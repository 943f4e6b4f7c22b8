import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm, symlink } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import * as z from "zod";
import { fromJson } from "../../runtime/from-json.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { packageRoot } from "../files/project.ts";
import { replaceFile } from "../files/replace.ts";
import type { Progress } from "../process/progress.ts";
import { run } from "../process/run.ts";
import { cacheDirectory } from "../programs/cache.ts";
import { findOnPath, programFile } from "./engine.ts";
import { type Provider, pluginVersion, providers } from "./versions.ts";

/** Where a stack's provider plugins come from: all from the same place. */
export type PluginOrigin = "official" | "stand-in";

const standIns = join(packageRoot, "test", "stand-ins");
/** What the dev stack's program uses. */
const needed: Provider[] = ["kubernetes", "command"];
/** Long enough for a slow connection, short enough if nothing answers. */
const downloadTimeoutMs = 60_000;

/**
 * The environment in which the engine finds all the stand-ins and no other plugins: a plugin directory of links.
 *
 * @param home the PULUMI_HOME to create
 * @param programs a directory with each provider's program, `<provider>/pulumi-resource-<provider>`
 */
export async function withStandIns(
  env: Record<string, string>,
  home: string,
  programs = standIns,
): Promise<Record<string, string>> {
  for (const provider of providers) {
    const name = `pulumi-resource-${provider}`;
    const directory = join(home, "plugins", `resource-${provider}-v${pluginVersion(provider)}`);
    await mkdir(directory, { recursive: true });
    const fresh = join(directory, `.${process.pid}`);
    await rm(fresh, { force: true });
    await symlink(join(programs, provider, name), fresh);
    await rename(fresh, join(directory, name));
  }
  return {
    ...env,
    PULUMI_HOME: home,
    PULUMI_IGNORE_AMBIENT_PLUGINS: "true",
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
  };
}

export interface PluginQuestion {
  stack: string;
  /** Whether the stack's state in this clone has resources; if so, their plugins must not be switched. */
  stackHasResources: boolean;
  /** Whether the stand-ins of test/ may serve it. */
  mayStandIn: boolean;
  /** The engine that downloads plugins, and its environment. */
  command: string;
  env: Record<string, string>;
}

/**
 * Official plugins if they are available, otherwise, for the dev stack, the stand-ins of test/. A stack keeps the plugins it
 * was made with.
 * @throws Refusal if official plugins are needed and not available
 */
export async function resolvePlugins(question: PluginQuestion, progress: Progress): Promise<PluginOrigin> {
  const { stack, stackHasResources, mayStandIn } = question;
  const recorded = stackHasResources ? await readRecord(stack) : undefined;
  if (recorded === "stand-in") {
    announceStandIns(progress);
    if (needed.every((provider) => isInstalled(provider, question.env)))
      progress(
        `The official plugins are installed now; stack ${stack} keeps the stand-ins it was made with until npm stop.`,
      );
    return "stand-in";
  }
  const missing = await firstMissing(question, progress);
  if (missing === undefined) {
    if (mayStandIn) await writeRecord(stack, "official");
    return "official";
  }
  if (!mayStandIn)
    throw new Refusal(
      "plugins-missing",
      `The provider plugin ${missing.provider} ${pluginVersion(missing.provider)} is not installed and cannot be downloaded here (${missing.reason}). ${offline()}`,
    );
  if (recorded === "official")
    throw new Refusal(
      "plugins-missing",
      `Stack ${stack} was made with the official provider plugins, and ${missing.provider} ${pluginVersion(missing.provider)} is not available now (${missing.reason}). A stack's plugins are never switched: make the plugin available on PATH or restore the connection to get.pulumi.com, then run the command again.`,
    );
  announceStandIns(progress);
  await writeRecord(stack, "stand-in");
  return "stand-in";
}

/** How plugins come to a machine that has no way to the publisher. */
const offline = (): string =>
  `On a machine that has a connection, fetch ${needed.map((provider) => `https://get.pulumi.com/releases/plugins/pulumi-resource-${provider}-v${pluginVersion(provider)}-${pluginPlatform()}.tar.gz`).join(" and ")}; ` +
  `here, run for each: pulumi plugin install resource NAME VERSION --file ARCHIVE (${needed.map((provider) => `${provider} ${pluginVersion(provider)}`).join(", ")}). ` +
  "Or put the programs pulumi-resource-NAME on PATH.";

/** As the publisher names this machine. */
const pluginPlatform = (): string =>
  `${process.platform === "win32" ? "windows" : process.platform}-${process.arch === "x64" ? "amd64" : process.arch}`;

function announceStandIns(progress: Progress): void {
  const list = needed.map((provider) => `${provider} ${pluginVersion(provider)}`).join(" and ");
  progress(
    `The official provider plugins (${list}) cannot be downloaded here: using the project's stand-ins (test/stand-ins).`,
  );
}

/** The first plugin that is neither installed nor downloadable, with the reason. */
async function firstMissing(
  { command, env }: PluginQuestion,
  progress: Progress,
): Promise<{ provider: Provider; reason: string } | undefined> {
  for (const provider of needed) {
    if (isInstalled(provider, env)) continue;
    progress(`Downloading the provider plugin ${provider} ${pluginVersion(provider)} …`);
    const { code, stderr } = await run(command, ["plugin", "install", "resource", provider, pluginVersion(provider)], {
      env,
      timeoutMs: downloadTimeoutMs,
    });
    if (code === 0) continue;
    const cause = /dial tcp.*|lookup .*|: \d{3} HTTP.*/.exec(stderr)?.[0] ?? "the download did not finish in a minute";
    return { provider, reason: cause.trim() };
  }
  return undefined;
}

/** PULUMI_HOME if the user has not set it: the engine's usual one if the plugins are there, otherwise one in the cache. */
export function defaultHome(): string {
  const usual = join(homedir(), ".pulumi");
  const isThere = needed.every((provider) => isInstalled(provider, { PATH: "", PULUMI_HOME: usual }));
  return isThere ? usual : join(cacheDirectory(), "pulumi");
}

/** On PATH (in any version, as the engine accepts it) or in PULUMI_HOME at the SDK's version. */
function isInstalled(provider: Provider, env: Record<string, string>): boolean {
  const onPath = findOnPath(`pulumi-resource-${provider}`, env.PATH);
  if (onPath && !env.PULUMI_IGNORE_AMBIENT_PLUGINS) return true;
  const directory = join(
    env.PULUMI_HOME ?? join(homedir(), ".pulumi"),
    "plugins",
    `resource-${provider}-v${pluginVersion(provider)}`,
  );
  return existsSync(join(directory, programFile(`pulumi-resource-${provider}`))) && !existsSync(`${directory}.partial`);
}

export const recordFile = (stack: string) => join(packageRoot, ".local", "engine", `${stack}.json`);

const record = z.strictObject({ plugins: z.enum(["official", "stand-in"]) });

async function readRecord(stack: string): Promise<PluginOrigin | undefined> {
  if (!existsSync(recordFile(stack))) return undefined;
  const { data } = fromJson.pipe(record).safeParse(await readFile(recordFile(stack), "utf8"));
  if (data !== undefined) return data.plugins;
  throw new Refusal(
    "plugins-record",
    `${recordFile(stack)} is damaged. It says which provider plugins stack ${stack} was made with: write {"plugins":"official"} there, or {"plugins":"stand-in"} if the official ones could not be downloaded then.`,
  );
}

async function writeRecord(stack: string, plugins: PluginOrigin): Promise<void> {
  await replaceFile(recordFile(stack), `${JSON.stringify({ plugins })}\n`);
}
