import { accessSync, constants, statSync } from "node:fs";
import { link } from "node:fs/promises";
import { basename, delimiter, dirname, isAbsolute, join } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import { isAtLeast } from "../../runtime/version.ts";
import type { Progress } from "../process/progress.ts";
import { run } from "../process/run.ts";
import { cached } from "../programs/cache.ts";
import { type GoProgram, goProgram, isBuilt } from "../programs/go.ts";
import { moduleDirectory } from "../programs/pinned.ts";
import { type Release, releasedOr } from "../programs/released.ts";
import { engineVersion, oldestEngineVersion } from "./versions.ts";

export interface Engine {
  /** Absolute path of `pulumi`. */
  command: string;
  /** Directories that must be on its PATH: its own, which also contains its language host. */
  path: string[];
  version: string;
  origin: "PATH" | "pinned";
}

const cli: GoProgram = {
  name: "pulumi",
  version: engineVersion,
  module: moduleDirectory("pulumi"),
  packages: ["github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"],
  ldflags: [`-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v${engineVersion}`],
  duration: "about 5 minutes on two cores the first time",
  inBackground: true,
};

/**
 * The last language host for Node that was published as a Go module. It works with today's engine and SDK, but ignores
 * `runtime.options` in Pulumi.yaml; nothing here depends on them. Its go.mod asks for gRPC and others in the engine's own
 * versions: it gets their repairs, and they are compiled once for both.
 */
const languageHost: GoProgram = {
  name: "pulumi-language-nodejs",
  version: "3.65.0",
  module: moduleDirectory("pulumi-language-nodejs"),
  packages: ["github.com/pulumi/pulumi/sdk/v3/nodejs/cmd/pulumi-language-nodejs"],
  duration: "about a minute",
  inBackground: true,
};

/**
 * Of pulumi-vVERSION-PLATFORM.tar.gz, which has the engine and its language hosts: the SHA-256 that the publisher gives to
 * Homebrew (pulumi/homebrew-tap), and beside the release. Belongs to one version, as a test makes sure of.
 */
export const engineDigests: { version: string; platforms: Record<string, string> } = {
  version: "3.259.0",
  platforms: {
    "linux-x64": "94ba357acac23d01474084c4b00098dc0f7bc70ce13f34c777459254a5f718e5",
    "linux-arm64": "edc8327463a72160bb36cf82cf5062da9c8a244290a706d9980988e7bf486853",
    "darwin-x64": "eaca4c3b8277bfa3ab061fa3b270d1c66358a0b2e613da8c5587a04b7226c534",
    "darwin-arm64": "57c27f179e527e2cf9f62b841a448af72a020e44b2fb4ee0d9bd85556c00c864",
  },
};

function engineRelease(platform: string): Release | undefined {
  const sha256 = engineDigests.platforms[platform];
  if (sha256 === undefined) return undefined;
  const place = `https://github.com/pulumi/pulumi/releases/download/v${engineDigests.version}`;
  return {
    name: "pulumi",
    version: engineDigests.version,
    programs: ["pulumi", "pulumi-language-nodejs"],
    files: [{ url: `${place}/pulumi-v${engineDigests.version}-${platform}.tar.gz`, sha256, to: "." }],
  };
}

/**
 * The user's own engine if it is recent enough and has its language host, otherwise the pinned one: as released, or built.
 * @throws Refusal where neither runs on this platform
 */
export async function resolveEngine(progress: Progress): Promise<Engine> {
  const installed = findOnPath("pulumi");
  if (installed && findOnPath("pulumi-language-nodejs", [dirname(installed), process.env.PATH].join(delimiter))) {
    const { code, stdout } = await run(installed, ["version"], { timeoutMs: 20_000 });
    const version = stdout.trim().replace(/^v/, "");
    if (code === 0 && isAtLeast(version, oldestEngineVersion))
      return { command: installed, path: [dirname(installed)], version, origin: "PATH" };
    progress(`The installed Pulumi ${version} is older than ${oldestEngineVersion}; using ${engineVersion}.`);
  }
  const { platform, arch } = process;
  const build = {
    isThere: async () => (await isBuilt(cli)) && (await isBuilt(languageHost)),
    make: () => built(progress),
  };
  const isLinux = platform === "linux" && arch === "x64";
  const alternative = isLinux ? build : { isThere: async () => false, make: () => Promise.reject(noEngine()) };
  const directory = await releasedOr(engineRelease(`${platform}-${arch}`), alternative, progress);
  return { command: join(directory, "pulumi"), path: [directory], version: engineVersion, origin: "pinned" };
}

const noEngine = () =>
  new Refusal(
    "engine-missing",
    `Pulumi ${oldestEngineVersion} or newer is not on PATH, and none can be fetched for ${process.platform} on ${process.arch}. Install ${engineVersion} (https://www.pulumi.com/docs/install), and run the command again.`,
  );

/** The engine beside its language host, for Linux on x86-64. */
async function built(progress: Progress): Promise<string> {
  // The small one first: at the end of a build, when the linker runs alone, there is less to wait for.
  const nodejs = join(await goProgram(languageHost, progress), "pulumi-language-nodejs");
  const programs = [join(await goProgram(cli, progress), "pulumi"), nodejs];
  // The engine uses a language host beside it as its own, and warns about one that it finds elsewhere.
  return await cached(
    {
      name: "engine",
      inputs: programs,
      make: async (fresh) => {
        for (const program of programs) await link(program, join(fresh, basename(program)));
      },
    },
    progress,
  );
}

/** A program's file. */
export const programFile = (name: string): string => (process.platform === "win32" ? `${name}.exe` : name);

/** The first executable file of that name, as an absolute path. */
export function findOnPath(name: string, path = process.env.PATH ?? ""): string | undefined {
  return path
    .split(delimiter)
    .filter((directory) => isAbsolute(directory))
    .map((directory) => join(directory, programFile(name)))
    .find(isExecutable);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
