// install.ts [--pin]: for runners, the official engine and plugins from archives whose SHA-256 this repository holds.
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import { run, Verb } from "../cli/command.ts";
import { packageRoot } from "../files/project.ts";
import { connectionProblem, send } from "../http/client.ts";
import { download } from "../http/download.ts";
import { type Progress, toStderr } from "../process/progress.ts";
import { check } from "../process/run.ts";
import { engineVersion, type Provider, pluginVersion, providers } from "./versions.ts";

export interface Archive {
  /** Its file's name, which carries the version. */
  name: string;
  /** Undefined: the engine itself, with its language hosts. */
  plugin?: Provider;
  /** Where the publisher offers the same file: the first is used, the second must agree when it is pinned. */
  urls: [string, string];
}

/** Engine and plugins for Linux on x86-64, in the versions of the SDK packages. */
export function archives(downloads = "https://get.pulumi.com", releases = "https://github.com/pulumi"): Archive[] {
  const engine = `pulumi-v${engineVersion}-linux-x64.tar.gz`;
  return [
    {
      name: engine,
      urls: [`${downloads}/releases/sdk/${engine}`, `${releases}/pulumi/releases/download/v${engineVersion}/${engine}`],
    },
    ...providers.map((plugin): Archive => {
      const version = pluginVersion(plugin);
      const name = `pulumi-resource-${plugin}-v${version}-linux-amd64.tar.gz`;
      return {
        name,
        plugin,
        urls: [
          `${downloads}/releases/plugins/${name}`,
          `${releases}/pulumi-${plugin}/releases/download/v${version}/${name}`,
        ],
      };
    }),
  ];
}

const checksumsFile = join(packageRoot, "tools", "engine", "checksums.txt");

/** The lines of `sha256sum`, by file name. */
export function readChecksums(text: string): Map<string, string> {
  return new Map(
    text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => {
        const [, digest, name] = /^([0-9a-f]{64}) {2}([\w.-]+)$/.exec(line) ?? [];
        if (digest && name) return [name, digest];
        throw new Refusal(
          "bad-checksums",
          `"${line}" is not a line of sha256sum: run "npm run engine -- --pin" again.`,
        );
      }),
  );
}

/** The directory of `pulumi`; plugins go where it looks for them. Nothing is unpacked before everything is checked. */
export async function installEngine(
  wanted: Archive[],
  checksums: Map<string, string>,
  directory: string,
  progress: Progress,
): Promise<string> {
  const checked = wanted.map((archive) => {
    const sha256 = checksums.get(archive.name);
    if (sha256 !== undefined) return { ...archive, sha256 };
    throw new Refusal(
      "not-pinned",
      `The SHA-256 of ${archive.name} is not in ${checksumsFile}: run "npm run engine -- --pin" on a machine that you trust and commit the file.`,
    );
  });
  const fetched: { plugin: Archive["plugin"]; file: string }[] = [];
  for (const { plugin, urls, sha256 } of checked)
    fetched.push({ plugin, file: await download({ url: urls[0], sha256 }, progress) });
  const target = join(directory, `pulumi-${engineVersion}`);
  const bin = join(target, "pulumi");
  for (const { file } of fetched.filter(({ plugin }) => plugin === undefined)) {
    if (existsSync(bin)) continue;
    const fresh = `${target}.${process.pid}`;
    await rm(fresh, { recursive: true, force: true });
    await mkdir(fresh, { recursive: true });
    await check("tar", ["--extract", "--gzip", "--no-same-owner", "--file", file, "--directory", fresh]);
    await rename(fresh, target);
  }
  const env = { ...process.env, PULUMI_SKIP_UPDATE_CHECK: "true" };
  for (const { plugin, file } of fetched) {
    if (plugin === undefined) continue;
    const words = ["resource", plugin, pluginVersion(plugin), "--file", file];
    await check(join(bin, "pulumi"), ["plugin", "install", ...words], { env });
  }
  return bin;
}

/** The text of the checksums' file. What two places of the publisher call the same must be the same. */
export async function pinned(wanted: Archive[], known: Map<string, string>, progress: Progress): Promise<string> {
  const lines: string[] = [];
  for (const { name, urls } of wanted) {
    progress(`Fetching ${name} twice …`);
    const [first, second] = [await digestOf(urls[0]), await digestOf(urls[1])];
    if (first !== second) {
      throw new Refusal(
        "two-files",
        `${urls[0]} has SHA-256 ${first}, and ${urls[1]} has ${second}: neither is pinned.`,
      );
    }
    const before = known.get(name);
    if (before !== undefined && before !== first) {
      throw new Refusal(
        "changed",
        `${name} had SHA-256 ${before} and now has ${first}: a released file does not change. Find out why first.`,
      );
    }
    lines.push(`${first}  ${name}\n`);
  }
  return lines.join("");
}

async function digestOf(url: string): Promise<string> {
  try {
    const response = await send({ method: "GET", url: new URL(url) });
    if (response.statusCode !== 200) throw new Error(`it answered ${response.statusCode}`);
    const hash = createHash("sha256");
    for await (const chunk of response) hash.update(chunk as Buffer);
    return hash.digest("hex");
  } catch (error) {
    throw new Refusal("download-failed", `${url} cannot be fetched: ${connectionProblem(error)}.`, { cause: error });
  }
}

const engine = () =>
  new Verb("npm run engine --")
    .description(
      `Installs the pinned engine and its plugins from the publisher's archives and prints the directory to put on PATH. An
archive whose SHA-256 is not the one in tools/engine/checksums.txt is never unpacked.`,
    )
    .option(
      "--pin",
      `writes that file: fetches each archive from both places where the publisher offers it. Do this on a machine that you
trust, after every change of version, and commit the file`,
    )
    .action(async ({ pin }) => {
      const known = readChecksums(existsSync(checksumsFile) ? await readFile(checksumsFile, "utf8") : "");
      if (pin) await writeFile(checksumsFile, await pinned(archives(), known, toStderr));
      else console.log(await installEngine(archives(), known, join(packageRoot, ".local", "engine"), toStderr));
    });

if (import.meta.main) process.exitCode = await run(engine(), process.argv.slice(2));
