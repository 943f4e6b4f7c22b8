import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  joinScript,
  prepareScript,
  registryScript,
  unprepareScript,
  unregistryScript,
} from "../../components/bare-metal-scripts.ts";
import { checkScript } from "../../components/host-check.ts";
import { lockPath, logPath, stateDirectory } from "../../node-installer/host/files.ts";
import { guardScript } from "../../node-installer/host/guard.ts";
import { platforms } from "../../runtime/platforms.ts";
import { distributionNames } from "../../runtime/spec.ts";
import { packageRoot } from "../files/project.ts";
import { toStderr } from "../process/progress.ts";
import { type PinnedPackage, packagePlaces, pinnedDebianFiles } from "../programs/debian.ts";

/** Debian 12's, because it runs wherever this repository does: with glibc 2.34 or newer. */
const packages: PinnedPackage[] = [
  {
    name: "shellcheck",
    version: "0.9.0-1",
    archive: "debian",
    path: "pool/main/s/shellcheck/shellcheck_0.9.0-1_amd64.deb",
    sha256: "8c40f8a4ecccf3d746b933853972f1cd1be6df84fc5977d0137269d4debefa4f",
  },
  {
    name: "libffi8",
    version: "3.4.4-1",
    archive: "debian",
    path: "pool/main/libf/libffi/libffi8_3.4.4-1_amd64.deb",
    sha256: "6d9f6c25c30efccce6d4bceaa48ea86c329a3432abb360a141f76ac223a4c34a",
  },
  {
    name: "libgmp10",
    version: "2:6.2.1+dfsg1-1.1",
    archive: "debian",
    path: "pool/main/g/gmp/libgmp10_6.2.1+dfsg1-1.1_amd64.deb",
    sha256: "187aedef2ed763f425c1e523753b9719677633c7eede660401739e9c893482bd",
  },
];

/** A time at which all of them were in Debian's archive. */
const inArchive = "20240101T000000Z";

/** In these a loop may have one word, and not every part is needed by the next: SC2043, SC2034. */
const settingsOfAssembled = "shell=sh\ndisable=SC2043,SC2034\n";

/** Scripts that are put together from parts: each kind, for every host and distribution, by name. */
function assembledScripts(): Record<string, string> {
  const scripts: Record<string, string> = {
    guard: guardScript({ state: stateDirectory, lock: lockPath, log: logPath }),
    registry: registryScript("mirror.example:5000", "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"),
    unregister: unregistryScript("mirror.example:5000"),
  };
  for (const distribution of distributionNames) {
    scripts[`join-${distribution}`] = joinScript(distribution);
    scripts[`unprepare-${distribution}`] = unprepareScript(distribution);
    for (const [platform, { host }] of Object.entries(platforms))
      scripts[`prepare-${platform}-${distribution}`] = prepareScript(host, distribution);
  }
  for (const [platform, { host }] of Object.entries(platforms))
    scripts[`check-${platform}`] = checkScript(host, "containerd");
  return scripts;
}

/**
 * Whether shellcheck has nothing to say of any shell script, of those in files and those that are put together.
 * @throws Refusal if shellcheck cannot be had on this machine
 */
export async function shellScriptsPass(): Promise<boolean> {
  const files = await pinnedDebianFiles({ name: "shellcheck", packages, places: packagePlaces(inArchive) }, toStderr);
  // Kept, for looking at what shellcheck says of them.
  const assembled = join(".local", "shellcheck");
  await rm(join(packageRoot, assembled), { recursive: true, force: true });
  await mkdir(join(packageRoot, assembled), { recursive: true });
  for (const [name, text] of Object.entries(assembledScripts()))
    await writeFile(join(packageRoot, assembled, `${name}.sh`), text);
  await writeFile(join(packageRoot, assembled, ".shellcheckrc"), settingsOfAssembled);
  const own = globSync("**/*.sh", { cwd: packageRoot, exclude: ["node_modules", "dist", ".local"] });
  const scripts = [...own, ...globSync(`${assembled}/*.sh`, { cwd: packageRoot })].sort();
  const { status } = spawnSync(join(files, "usr/bin/shellcheck"), ["--color=auto", "--", ...scripts], {
    cwd: packageRoot,
    env: { ...process.env, LD_LIBRARY_PATH: join(files, "usr/lib/x86_64-linux-gnu") },
    stdio: "inherit",
  });
  console.log(
    `shellcheck looked at ${own.length} files and ${scripts.length - own.length} scripts that are put together.`,
  );
  return status === 0;
}
