import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import type { Manifest } from "../../runtime/manifest.ts";
import { isPackage, packageRoot } from "../files/project.ts";
import { run } from "../process/run.ts";
import type { PinnedPackage } from "../programs/debian.ts";

/** A package of npm, as the lock file of the installed packages has it. */
export interface NpmPackage {
  name: string;
  version: string;
  /** What npm checked the package's archive against: "sha512-<base64>". */
  integrity?: string;
  license?: string;
}

/** Beside the installer's bundle: the packages whose code is in it. */
export const bundledPackagesFile = join(packageRoot, "dist", "node-installer.packages.json");

/** What the clone was when the image was built. */
export interface SourceState {
  /** The commit's hash, hex. */
  commit: string;
  /** Whether files differed from the commit's. */
  changed: boolean;
  /** The commit's time, as SPDX writes it: 2026-01-31T12:00:00Z. */
  time: string;
}

/** Everything that an installer image was made from. */
export interface ImageParts {
  /** Of this product. */
  version: string;
  source: SourceState | undefined;
  node: NpmPackage;
  /** In the program's bundle. */
  bundled: NpmPackage[];
  debian: { suite: string; snapshot: string; packages: PinnedPackage[] };
  payloads: Manifest[];
  /** Seconds since 1970, where the build is told its time (reproducible-builds.org). */
  sourceDateEpoch: number | undefined;
}

const lockSchema = z.object({
  packages: z.record(
    z.string(),
    z.object({ version: z.string().optional(), integrity: z.string().optional(), license: z.string().optional() }),
  ),
});

/** The packages that npm installed in a node_modules directory, by their path such as "node_modules/zod". */
async function installedPackages(modules: string): Promise<z.infer<typeof lockSchema>["packages"]> {
  const text = await readFile(join(modules, ".package-lock.json"), "utf8").catch(() => undefined);
  return text === undefined ? {} : lockSchema.parse(JSON.parse(text)).packages;
}

/**
 * The packages that a bundle was made from, sorted.
 * @param inputs paths of the modules whose code is in the bundle
 */
export async function packagesOf(inputs: string[]): Promise<NpmPackage[]> {
  const installed = await installedPackages(join(packageRoot, "node_modules"));
  const places = new Set(
    inputs
      .map((path) => /^.*?(node_modules\/.*node_modules\/|node_modules\/)((?:@[^/]+\/)?[^/]+)\//.exec(path))
      .filter((match) => match !== null)
      .map(([, above, name]) => `${above}${name}`),
  );
  return [...places].sort().map((place) => npmPackage(place, installed[place]));
}

function npmPackage(
  place: string,
  { version = "", integrity, license }: z.infer<typeof lockSchema>["packages"][string] = {},
): NpmPackage {
  return {
    name: place.slice(place.lastIndexOf("node_modules/") + "node_modules/".length),
    version,
    ...(integrity ? { integrity } : {}),
    ...(license ? { license } : {}),
  };
}

/** The clone's commit; undefined in a package, and where there is no git. */
export async function sourceState(): Promise<SourceState | undefined> {
  if (isPackage || !existsSync(join(packageRoot, ".git"))) return undefined;
  const git = async (...args: string[]) =>
    await run("git", ["-C", packageRoot, ...args]).catch(() => ({ code: 1, stdout: "" }));
  const head = await git("log", "-1", "--format=%H %ct");
  const status = await git("status", "--porcelain");
  const [, commit = "", seconds] = /^([0-9a-f]{40,64}) (\d+)$/.exec(head.stdout.trim()) ?? [];
  if (head.code !== 0 || status.code !== 0 || !commit) return undefined;
  return { commit, changed: status.stdout !== "", time: spdxTime(Number(seconds)) };
}

export const spdxTime = (seconds: number): string => new Date(seconds * 1000).toISOString().replace(/\.\d+Z$/, "Z");
