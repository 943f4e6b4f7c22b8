import { accessSync, constants, statSync } from "node:fs";
import { link } from "node:fs/promises";
import { basename, delimiter, dirname, join } from "node:path";
import { isAtLeast } from "../../runtime/version.ts";
import type { Progress } from "../process/progress.ts";
import { run } from "../process/run.ts";
import { cached } from "../programs/cache.ts";
import { type GoProgram, goProgram } from "../programs/go.ts";
import { moduleDirectory } from "../programs/pinned.ts";
import { engineVersion, oldestEngineVersion } from "./versions.ts";

export interface Engine {
  /** Absolute path of `pulumi`. */
  command: string;
  /** Directories that must be on its PATH: its own, which also contains its language host. */
  path: string[];
  version: string;
  origin: "PATH" | "built";
}

const cli: GoProgram = {
  name: "pulumi",
  version: engineVersion,
  module: moduleDirectory("pulumi"),
  packages: ["github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"],
  ldflags: [`-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v${engineVersion}`],
  duration: "about 5 minutes on two cores the first time",
};

/**
 * The last language host for Node that was published as a Go module. It works with today's engine and SDK, but ignores
 * `runtime.options` in Pulumi.yaml; nothing here depends on them.
 */
const languageHost: GoProgram = {
  name: "pulumi-language-nodejs",
  version: "3.65.0",
  module: moduleDirectory("pulumi-language-nodejs"),
  packages: ["github.com/pulumi/pulumi/sdk/v3/nodejs/cmd/pulumi-language-nodejs"],
  duration: "about a minute",
};

/** The user's own engine if it is recent enough and has its language host, otherwise the pinned one, built and cached. */
export async function resolveEngine(progress: Progress): Promise<Engine> {
  const installed = findOnPath("pulumi");
  if (installed && findOnPath("pulumi-language-nodejs", [dirname(installed), process.env.PATH].join(delimiter))) {
    const { code, stdout } = await run(installed, ["version"], { timeoutMs: 20_000 });
    const version = stdout.trim().replace(/^v/, "");
    if (code === 0 && isAtLeast(version, oldestEngineVersion))
      return { command: installed, path: [dirname(installed)], version, origin: "PATH" };
    progress(`The installed Pulumi ${version} is older than ${oldestEngineVersion}; using ${engineVersion}.`);
  }
  const programs = [
    join(await goProgram(cli, progress), "pulumi"),
    join(await goProgram(languageHost, progress), "pulumi-language-nodejs"),
  ];
  // The engine uses a language host beside it as its own, and warns about one that it finds elsewhere.
  const directory = await cached(
    {
      name: "engine",
      inputs: programs,
      make: async (fresh) => {
        for (const program of programs) await link(program, join(fresh, basename(program)));
      },
    },
    progress,
  );
  return { command: join(directory, "pulumi"), path: [directory], version: engineVersion, origin: "built" };
}

/** The first executable file of that name, as an absolute path. */
export function findOnPath(name: string, path = process.env.PATH ?? ""): string | undefined {
  return path
    .split(delimiter)
    .filter((directory) => directory.startsWith("/"))
    .map((directory) => join(directory, name))
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
