import { readdir, readFile, symlink } from "node:fs/promises";
import { join } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import { type Progress, seconds, whileWaiting } from "../process/progress.ts";
import { run } from "../process/run.ts";
import { cached, isCached } from "./cache.ts";

/** Programs built from published Go modules, which are verified by go.sum. */
export interface GoProgram {
  /** As a file name; with the version it names the cache's entry. */
  name: string;
  version: string;
  /** The directory that holds go.mod, go.sum and perhaps a main.go. */
  module: string;
  /** Packages to build, "." for the module's own; each becomes a file named by its last path segment. */
  packages: string[];
  tags?: string[];
  /** Beyond `-s -w`. */
  ldflags?: string[];
  /** Where to put the programs below the entry; the entry itself by default. */
  directory?: string;
  /** More names (links) for the one program that is built. */
  links?: { target: string; names: string[] };
  /** How long a first build takes, to tell the user. */
  duration?: string;
  /** What is built at the same time is needed earlier. */
  inBackground?: boolean;
}

/** Whether the cache has the programs. */
export const isBuilt = async (program: GoProgram): Promise<boolean> => isCached(await entryOf(program));

/**
 * Builds the programs unless the cache has them; returns the entry's directory, which contains them.
 * @throws Refusal without a usable `go`, or with the end of the compiler's output
 */
export async function goProgram(program: GoProgram, progress: Progress): Promise<string> {
  const { name, version, packages, directory: target = ".", links } = program;
  const entry = await entryOf(program);
  return await cached(
    {
      ...entry,
      space: 4e9,
      make: async (directory) => {
        const go = await goCommand();
        const begin = Date.now();
        progress(`Building ${name} ${version} from its Go module${program.duration ? ` (${program.duration})` : ""} …`);
        const seen = { downloaded: 0, compiled: 0 };
        const report = () =>
          progress(
            `  ${name}: ${seen.downloaded} modules downloaded, ${seen.compiled} packages compiled, ${seconds(begin)}`,
          );
        const lines: string[] = [];
        const { code } = await whileWaiting(15, report, () =>
          run(go, ["build", "-v", ...entry.inputs.flags, "-o", `${join(directory, target)}/`, ...packages], {
            cwd: program.module,
            inBackground: program.inBackground ?? false,
            // The build must not depend on the user's own flags (an empty GOFLAGS would mean those of go env -w) or
            // workspace. A toolchain newer than the installed one is downloaded as a module, too.
            env: {
              ...process.env,
              GOOS: "linux",
              GOARCH: "amd64",
              GO111MODULE: "on",
              CGO_ENABLED: "0",
              GOFLAGS: "-mod=readonly",
              GOWORK: "off",
              GOTOOLCHAIN: process.env.GOTOOLCHAIN ?? "auto",
              // For the compiler, not for what it builds: a sixth less CPU time for a tenth more memory, measured with containerd.
              GOGC: process.env.GOGC ?? "400",
            },
            onErrorLine: (line) => {
              if (line.startsWith("go: downloading")) seen.downloaded++;
              else if (/^[\w.~-]+(\/[\w.~-]+)*$/.test(line)) seen.compiled++;
              else lines.push(line);
            },
          }),
        );
        if (code !== 0)
          throw new Refusal(
            "go-build-failed",
            `Building ${name} ${version} failed. Is the Go module proxy reachable, and is there disk space? go says:\n  ${lines.slice(-15).join("\n  ")}`,
          );
        if (links !== undefined)
          for (const link of links.names) await symlink(links.target, join(directory, target, link));
        progress(`  Built ${name} ${version} (${seconds(begin)}).`);
      },
    },
    progress,
  );
}

/** Its place in the cache, and all that decides what is built. */
async function entryOf({ name, version, module, packages, ...rest }: GoProgram) {
  const { tags = [], ldflags = [], directory: target = ".", links } = rest;
  // No cgo: the programs run on nodes whose C library is not the build machine's, and no C compiler is needed.
  // No DWARF: the linker drops it anyway, and the build is a sixth faster without it.
  const flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false"];
  if (tags.length) flags.push(`-tags=${tags.join(",")}`);
  flags.push(`-ldflags=${["-s", "-w", ...ldflags].join(" ")}`);
  const files = await moduleFiles(module);
  return { name: `${name}-${version}`, inputs: { files, packages, flags, target, links } };
}

/** Names and contents of the files that decide the build, in a fixed order. */
async function moduleFiles(directory: string): Promise<[string, string][]> {
  const names = (await readdir(directory)).filter((file) => /^go\.(mod|sum)$|\.go$/.test(file)).sort();
  return await Promise.all(
    names.map(async (file): Promise<[string, string]> => [file, await readFile(join(directory, file), "utf8")]),
  );
}

/** On PATH, or where Go's installers put it: the first one found may be a distribution's older Go. */
const usualPlaces = ["go", "/usr/local/go/bin/go", "/usr/lib/go/bin/go"];

/** The first Go that is new enough: since 1.21, Go fetches the toolchain that a module asks for. @throws Refusal */
export async function goCommand(places: readonly string[] = usualPlaces): Promise<string> {
  let tooOld: string | undefined;
  for (const go of places) {
    const found = await run(go, ["env", "GOVERSION"], { env: { ...process.env, GOTOOLCHAIN: "local" } }).catch(
      () => undefined,
    );
    if (found?.code !== 0) continue;
    const version = found.stdout.trim();
    const [, major = 0, minor = 0] = (/^go(\d+)\.(\d+)/.exec(version) ?? []).map(Number);
    if (major !== 1 || minor >= 21) return go;
    tooOld ??= version.slice(2);
  }
  if (tooOld !== undefined)
    throw new Refusal(
      "go-too-old",
      `Go ${tooOld} is installed; 1.21 or newer is needed. Install it from https://go.dev/dl.`,
    );
  throw new Refusal(
    "go-missing",
    "Go is not installed; it is needed to build the engine, Kubernetes and containerd from their modules. Install 1.21 or newer from https://go.dev/dl, or put it on PATH.",
  );
}
