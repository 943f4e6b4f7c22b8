import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { Refusal } from "../../../../runtime/refusal.ts";
import { defaultHome, recordFile, resolvePlugins, withStandIns } from "../../../../tools/engine/plugins.ts";
import { pluginVersion } from "../../../../tools/engine/versions.ts";

let directory: string;
let stack: string;
let said: string[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "contrast-plugins-"));
  stack = `test-${directory.slice(-6)}`;
  said = [];
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
  await rm(recordFile(stack), { force: true });
});

async function executable(path: string, script: string): Promise<string> {
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(path, `#!/bin/sh\n${script}\n`);
  await chmod(path, 0o755);
  return path;
}

/** An engine that can download plugins, or cannot. */
const online = () => executable(join(directory, "online"), `echo "$@" >>${directory}/calls`);
const offline = () =>
  executable(join(directory, "offline"), `echo "$@" >>${directory}/calls; echo 'dial tcp: no such host' >&2; exit 1`);

const resolve = (command: string, stackHasResources: boolean, path = "/nowhere", mayStandIn = true) =>
  resolvePlugins(
    { stack, stackHasResources, mayStandIn, command, env: { PATH: path, PULUMI_HOME: join(directory, "home") } },
    (line) => void said.push(line),
  );
const calls = async () =>
  existsSync(join(directory, "calls")) ? (await readFile(join(directory, "calls"), "utf8")).trim().split("\n") : [];

async function installOnPath(): Promise<string> {
  const bin = join(directory, "bin");
  for (const provider of ["kubernetes", "command"])
    await executable(join(bin, `pulumi-resource-${provider}`), "exit 0");
  return bin;
}

describe("official plugins", () => {
  test("on PATH are taken without a download", async () => {
    expect(await resolve(await offline(), false, await installOnPath())).toBe("official");
    expect(await calls()).toEqual([]);
  });

  test("in PULUMI_HOME are taken at the SDK's version only", async () => {
    for (const provider of ["kubernetes", "command"] as const) {
      const version = provider === "command" ? "0.0.1" : pluginVersion(provider);
      const plugin = join(directory, "home", "plugins", `resource-${provider}-v${version}`);
      await executable(join(plugin, `pulumi-resource-${provider}`), "exit 0");
    }
    expect(await resolve(await online(), false)).toBe("official");
    expect(await calls()).toEqual([`plugin install resource command ${pluginVersion("command")}`]);
  });
});

test("the engine's usual home is used if it has all plugins at the SDK's versions, otherwise the cache", async () => {
  vi.stubEnv("HOME", directory);
  vi.stubEnv("XDG_CACHE_HOME", join(directory, "cache"));
  onTestFinished(() => void vi.unstubAllEnvs());
  const inCache = join(directory, "cache", "contrast-runtime", "pulumi");
  const usual = join(directory, ".pulumi");
  for (const provider of ["kubernetes", "command"] as const) {
    expect(defaultHome()).toBe(inCache);
    const plugin = join(usual, "plugins", `resource-${provider}-v${pluginVersion(provider)}`);
    await executable(join(plugin, `pulumi-resource-${provider}`), "exit 0");
  }
  expect(defaultHome()).toBe(usual);
});

describe("stand-ins", () => {
  test("are taken where a download fails, after one attempt, and announced", async () => {
    expect(await resolve(await offline(), false)).toBe("stand-in");
    expect(await calls()).toHaveLength(1);
    expect(said.join("\n")).toContain("stand-ins (test/stand-ins)");
  });

  test("stay with a stack that was made with them, without another attempt", async () => {
    await resolve(await offline(), false);
    expect(await resolve(await online(), true, await installOnPath())).toBe("stand-in");
    expect(await calls()).toHaveLength(1);
    expect(said.at(-1)).toContain(`stack ${stack} keeps the stand-ins`);
  });

  test("give way when the stack is empty again", async () => {
    await resolve(await offline(), false);
    expect(await resolve(await online(), false)).toBe("official");
  });

  test("never replace official plugins under a stack: a refusal says what to do", async () => {
    await resolve(await online(), false);
    const refused = resolve(await offline(), true);
    await expect(refused).rejects.toThrow(Refusal);
    await expect(refused).rejects.toThrow(/made with the official provider plugins.*dial tcp: no such host/);
  });

  test.each(["", '{"plugins"', '{"plugins":"none"}'])(
    "a record that says %j says nothing: it is named",
    async (text) => {
      await resolve(await online(), false);
      await writeFile(recordFile(stack), text);
      await expect(resolve(await online(), true)).rejects.toThrow(
        `${recordFile(stack)} is damaged. It says which provider plugins stack ${stack} was made with: write`,
      );
    },
  );

  test("serve no stack but dev: any other is told how plugins come to a machine without a connection", async () => {
    const refused = resolve(await offline(), false, "/nowhere", false);
    await expect(refused).rejects.toThrow(
      `The provider plugin kubernetes ${pluginVersion("kubernetes")} is not installed and cannot be downloaded here (dial tcp: no such host).`,
    );
    await expect(refused).rejects.toThrow(
      `https://get.pulumi.com/releases/plugins/pulumi-resource-command-v${pluginVersion("command")}-linux-amd64.tar.gz`,
    );
    expect(existsSync(recordFile(stack))).toBe(false);
  });

  test("are the only plugins that the engine finds", async () => {
    const home = join(directory, "stand-ins");
    for (let time = 0; time < 2; time++) {
      const env = await withStandIns({ PATH: "/usr/bin" }, home);
      expect(env).toMatchObject({ PULUMI_HOME: home, PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true" });
    }
    const link = join(home, "plugins", `resource-command-v${pluginVersion("command")}`, "pulumi-resource-command");
    expect(await readlink(link)).toMatch(/test\/stand-ins\/command\/pulumi-resource-command$/);
  });
});
