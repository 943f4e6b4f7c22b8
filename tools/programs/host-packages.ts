import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import { withLock } from "../files/mutex.ts";
import { type Progress, seconds, whileWaiting } from "../process/progress.ts";
import { check, run } from "../process/run.ts";

/** A program (or file) that this machine needs, and the Debian and Ubuntu package that provides it. */
export interface HostProgram {
  /** A name on PATH, or an absolute path. */
  program: string;
  package: string;
}

const searchPath = () => [
  ...(process.env.PATH ?? "").split(delimiter),
  "/usr/local/sbin",
  "/usr/sbin",
  "/sbin",
  "/usr/bin",
  "/bin",
];

function isInstalled(program: string): boolean {
  if (program.startsWith("/")) return existsSync(program);
  return searchPath().some((directory) => existsSync(join(directory, program)));
}

/**
 * Makes sure that this machine has the programs. On Debian and Ubuntu, names and then installs their packages; elsewhere
 * only names what is missing.
 */
export async function requireHostPrograms(programs: HostProgram[], progress: Progress): Promise<void> {
  if (programs.every(({ program }) => isInstalled(program))) return;
  await withLock(
    "host packages",
    `process ${process.pid}`,
    (other) => progress(`Waiting for ${other}, which is installing packages.`),
    async () => {
      const missing = programs.filter(({ program }) => !isInstalled(program));
      if (missing.length === 0) return;
      const packages = [...new Set(missing.map((one) => one.package))].sort();
      if (!isInstalled("apt-get"))
        throw new Refusal(
          "program-missing",
          `Missing on this machine: ${missing.map(({ program }) => program).join(", ")}. Install them with its package manager (on Debian their packages are ${packages.join(", ")}).`,
        );
      if (process.getuid?.() !== 0)
        throw new Refusal(
          "not-root",
          `Missing on this machine: ${packages.join(", ")}. Run this as root, or install them with: apt-get install ${packages.join(" ")}`,
        );
      const begin = Date.now();
      progress(`Installing on this machine with apt-get: ${packages.join(", ")} …`);
      await whileWaiting(
        15,
        () => progress(`  still installing packages, ${seconds(begin)}`),
        () => aptInstall(packages),
      );
      const still = missing.find(({ program }) => !isInstalled(program));
      if (still)
        throw new Refusal(
          "program-missing",
          `The package ${still.package} is installed, but ${still.program} is still missing.`,
        );
    },
  );
}

async function aptInstall(packages: string[]): Promise<void> {
  const options = {
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive", NEEDRESTART_SUSPEND: "1" },
  };
  const args = ["-q", "-y", "-o", "DPkg::Lock::Timeout=120", "install", "--no-install-recommends", ...packages];
  // Without recent package lists, the first attempt does not find the packages.
  if ((await run("apt-get", args, options)).code === 0) return;
  await run("apt-get", ["-q", "update"], options);
  await check("apt-get", args, options);
}
