// power-cut.ts [--disk ext4|btrfs …] [--every N]: cuts the power at every N-th call of the installer, for every kind of change:
// the raw image of the disk is copied at that moment, mounted again, and the host and the next installer recover on it.
// It needs root, loop devices, mkfs.ext4 and mkfs.btrfs. What the kernel has not yet written of the disk's page cache is lost.
import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { CriError } from "../../node-installer/containerd/cri-error.ts";
import { parseDocument, type Table, tableAt } from "../../node-installer/containerd/document.ts";
import { runtimeSectionOf } from "../../node-installer/containerd/plugins.ts";
import { stateDirectory } from "../../node-installer/host/files.ts";
import { armedPath, guardName } from "../../node-installer/host/guard.ts";
import type { Host, RunResult } from "../../node-installer/host/host.ts";
import { createNodeHost } from "../../node-installer/host/node-host.ts";
import { converge } from "../../node-installer/install/converge.ts";
import { containerdOn } from "../../node-installer/install/daemon.ts";
import { createLog } from "../../node-installer/install/log.ts";
import { withoutKubernetes } from "../../node-installer/kubernetes/connect.ts";
import type { InstallSpec } from "../../runtime/spec.ts";
import { configDump } from "../fakes/containerd-dump.ts";
import { criOf } from "../fakes/cri.ts";
import { adminsFile, configPath, MemoryNode } from "../fakes/memory-node.ts";
import { plainShape } from "../fakes/node-shapes.ts";
import { fakeSystemctl } from "../fakes/systemctl.ts";
import { type Change, changes } from "../fault-trials/changes.ts";

const { values } = parseArgs({
  options: {
    disk: { type: "string", multiple: true, default: ["ext4", "btrfs"] },
    every: { type: "string", default: "3" },
  },
});
const every = Number(values.every);
const directory = fs.mkdtempSync(join(tmpdir(), "power-cut-"));
/** Specs and payloads; what they are placed on is a real disk. */
const models = new MemoryNode();
/** Real kernels write back in the background; here only what somebody asks for is written. */
const lazily = "commit=300";

function sh(command: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr}`);
  return stdout;
}

const mounts = new Set<Mounted>();

class Mounted {
  readonly root: string;
  readonly image: string;
  constructor(image: string) {
    this.image = image;
    this.root = fs.mkdtempSync(join(directory, "root-"));
    sh("mount", "-o", `loop,${lazily}`, image, this.root);
    mounts.add(this);
  }
  unmount(): void {
    sh("umount", this.root);
    mounts.delete(this);
    fs.rmdirSync(this.root);
  }
}

class Cut extends Error {}

/** A node whose files are on a real disk, and whose containerd and systemd are models. */
class DiskNode {
  readonly runs = "2.1.4";
  readonly sandboxes = [];
  starts = 0;
  private readonly root: string;
  private loaded: Table | undefined;
  private failed = false;
  private skew = 0;
  private startedAt = 0;
  onPoint: (point: string) => void = () => undefined;
  broken = new Set<string>();

  constructor(root: string) {
    this.root = root;
  }

  get runtimes(): Table {
    return tableAt(runtimeSectionOf(this.loaded), ["runtimes"]) ?? {};
  }
  get defaultRuntime(): unknown {
    return runtimeSectionOf(this.loaded)?.default_runtime_name ?? "";
  }
  get served(): string[] | undefined {
    if (this.loaded === undefined) return undefined;
    return Object.keys(this.runtimes)
      .filter((name) => name.startsWith("contrast-"))
      .sort();
  }

  text(path: string): string | undefined {
    return fs.existsSync(join(this.root, path)) ? fs.readFileSync(join(this.root, path), "utf8") : undefined;
  }

  start(): void {
    this.starts += 1;
    this.startedAt = this.uptime();
    const { code, stdout = "" } = configDump(this.text(configPath), configPath);
    this.failed = code !== undefined;
    this.loaded = this.failed ? undefined : parseDocument(stdout, configPath);
    if (Object.keys(this.runtimes).some((name) => this.broken.has(name))) this.loaded = undefined;
  }

  /** Power is back: systemd starts what is enabled, the guard before containerd. */
  boot(): void {
    const enabled = join(this.root, `etc/systemd/system/multi-user.target.wants/${guardName}.service`);
    if (fs.lstatSync(enabled, { throwIfNoEntry: false }) !== undefined) this.runGuard();
    this.start();
  }

  private runGuard(): void {
    const [script, order] = [this.text(`${stateDirectory}/guard.sh`), this.text(armedPath)];
    if (script === undefined || order === undefined) return;
    const armed = join(this.root, armedPath);
    fs.writeFileSync(armed, order.replaceAll(/^(file|backup)=\//gm, `$1=${this.root}/`));
    const bin = fs.mkdtempSync(join(directory, "bin-"));
    const systemctl = fakeSystemctl(bin);
    fs.writeFileSync(
      join(bin, "guard.sh"),
      script.replace(/^set -- .*$/m, (line) => line.replaceAll(/(?<=[ '])\//g, `${this.root}/`)),
    );
    const { code, stderr } = systemctl.run("sh", [join(bin, "guard.sh")]);
    if (code !== 0) throw new Error(`the guard failed: ${stderr}`);
  }

  private uptime(): number {
    return Number(process.hrtime.bigint()) / 1e6 + this.skew;
  }

  private run(command: string, [verb = "", ...args]: string[]): Partial<RunResult> {
    if (command.endsWith("/containerd")) {
      if (verb === "--version") return { stdout: `containerd github.com/containerd/containerd/v2 v${this.runs} x\n` };
      return configDump(this.text(args[0] ?? ""), args[0] ?? "");
    }
    if (command !== "systemctl") return { code: 127 };
    if (verb === "show") {
      const state = this.failed ? ["failed", "failed", "exit-code"] : ["active", "running", "success"];
      const [active, sub, result] = state;
      const started = `ExecMainStartTimestampMonotonic=${Math.round(this.startedAt * 1000)}`;
      return {
        stdout: `ActiveState=${active}\nSubState=${sub}\nResult=${result}\nNRestarts=0\nInvocationID=${this.starts}\n${started}\n`,
      };
    }
    if (verb === "restart" && args[0] === "containerd.service") this.start();
    // Links, and nothing that syncs them.
    if (verb === "enable" || verb === "disable") {
      for (const unit of args.filter((arg) => !arg.startsWith("-"))) {
        const target = unit.endsWith(".timer") ? "timers" : "multi-user";
        const link = join(this.root, `etc/systemd/system/${target}.target.wants/${unit}`);
        fs.mkdirSync(dirname(link), { recursive: true });
        fs.rmSync(link, { force: true });
        if (verb === "enable") fs.symlinkSync(`/etc/systemd/system/${unit}`, link);
      }
    }
    return {};
  }

  private host(): Host {
    const disk = createNodeHost({ root: this.root });
    const point = <T>(name: string, action: () => Promise<T>): Promise<T> =>
      action().then((result) => {
        this.onPoint(name);
        return result;
      });
    return {
      ...disk,
      makeDirectory: (path, mode) => point(`mkdir ${path}`, () => disk.makeDirectory(path, mode)),
      createFile: (path, ...rest) => point(`write ${path}`, () => disk.createFile(path, ...rest)),
      rename: (from, to) => point(`rename ${to}`, () => disk.rename(from, to)),
      replaceFile: (path, ...rest) => point(`replace ${path}`, () => disk.replaceFile(path, ...rest)),
      syncDirectory: (path) => point(`fsync ${path}/`, () => disk.syncDirectory(path)),
      remove: (path) => point(`remove ${path}`, () => disk.remove(path)),
      removeTree: (path) => point(`remove ${path}/`, () => disk.removeTree(path)),
      copyPayloadFile: (source, target, expected) =>
        point(`copy ${target}`, () => disk.copyPayloadFile(source, target, expected)),
      run: (command, args) =>
        point(`run ${command} ${args.join(" ")}`, async () => ({
          code: 0,
          stdout: "",
          stderr: "",
          ...this.run(command, args),
        })),
      lock: async () => ({ release: async () => undefined }),
      runningBelow: async () => [],
      now: () => new Date(Date.now() + this.skew),
      uptime: () => this.uptime(),
      delay: async (ms) => {
        this.skew += ms;
        await new Promise((resolve) => setImmediate(resolve));
      },
    };
  }

  async install(spec: InstallSpec, retry: boolean): Promise<void> {
    const host = this.host();
    const cri = criOf(this, async (_, answer) => {
      if (this.loaded === undefined) throw new CriError("containerd answers, but its CRI plugin is not running", true);
      return answer();
    });
    const environment = {
      ...models.environment(
        spec,
        withoutKubernetes(() => host.now()),
      ),
      host,
      daemon: containerdOn(host, spec.distribution, async () => cri),
      log: createLog(host, spec.group, () => undefined),
    };
    await converge(environment, { retry });
  }
}

const handlersOf = (digits: readonly string[]) => digits.map((one) => models.runtime(one).handler).sort();
const specOf = (digits: readonly string[]) => models.spec(digits.map((one) => models.runtime(one)));
const broken = (change: Change) => new Set(handlersOf(change.broken ?? []));

/** An image with the node as it is before the change. */
async function baseImage(disk: string, change: Change): Promise<string> {
  const image = join(directory, `${disk}.img`);
  fs.rmSync(image, { force: true });
  sh("truncate", "-s", disk === "btrfs" ? "384M" : "160M", image);
  sh(`mkfs.${disk}`, "-q", image);
  const mounted = new Mounted(image);
  fs.chmodSync(mounted.root, 0o755);
  const files = { "/run/systemd/system/mark": "", "/usr/bin/containerd": "", "/etc/systemd/system/mark": "" };
  for (const [path, text] of Object.entries({ ...plainShape("", adminsFile).files, ...files })) {
    fs.mkdirSync(join(mounted.root, dirname(path)), { recursive: true });
    fs.writeFileSync(join(mounted.root, path), text);
  }
  const node = new DiskNode(mounted.root);
  node.start();
  if (change.from.length > 0) await node.install(specOf(change.from), false);
  mounted.unmount();
  return image;
}

/** The change until the power fails after its n-th call, and what becomes of the disk then. Returns that call's name. */
async function trial(base: string, change: Change, at: number): Promise<string | undefined> {
  const [image, cut] = [join(directory, "running.img"), join(directory, "cut.img")];
  sh("cp", "--sparse=always", base, image);
  let name: string | undefined;
  const mounted = new Mounted(image);
  try {
    const node = new DiskNode(mounted.root);
    node.broken = broken(change);
    node.start();
    let calls = 0;
    node.onPoint = (point) => {
      calls += 1;
      if (calls < at) return;
      if (calls === at) {
        name = point;
        sh("cp", "--sparse=always", image, cut);
      }
      throw new Cut("the power fails");
    };
    await node.install(specOf(change.to), false).catch(() => undefined);
  } finally {
    mounted.unmount();
  }
  if (name === undefined) return undefined;
  const after = new Mounted(cut);
  try {
    const node = new DiskNode(after.root);
    node.broken = broken(change);
    node.boot();
    settled(node, change);
    let last: unknown;
    for (let run = 0; run < 3; run += 1) {
      last = await node.install(specOf(change.to), run > 0).then(
        () => undefined,
        (error: unknown) => error,
      );
    }
    settled(node, change);
    const wanted = handlersOf(change.broken === undefined ? change.to : change.from);
    if (node.served?.join() !== wanted.join()) throw new Error(`at last ${node.served?.join()} is served (${last})`);
    const left = fs
      .readdirSync(after.root, { recursive: true, encoding: "utf8" })
      .filter((path) => /contrast-(staged|runtime-(guard|candidate))|guard\.(sh|armed|fired)|\.staging-/.test(path));
    if (left.length > 0) throw new Error(`left behind: ${left.join(", ")}`);
  } catch (error) {
    throw new Error(`after "${name}" (${at}): ${(error as Error).message}`);
  } finally {
    after.unmount();
  }
  return name;
}

function settled(node: DiskNode, change: Change): void {
  const served = node.served?.join();
  const inFile = [...(node.text(configPath) ?? "").matchAll(/runtimes\.(contrast-[a-z0-9-]+)\]/g)]
    .map(([, name]) => name)
    .sort();
  if (served === undefined) throw new Error("the CRI does not serve");
  if (served !== inFile.join()) throw new Error(`served: ${served}; in the file: ${inFile.join()}`);
  if (![change.from, change.to].some((one) => handlersOf(one).join() === served))
    throw new Error(`neither old nor new: ${served}`);
  for (const handler of inFile) {
    const shim = node.text(`/opt/edgeless/${handler}/bin/containerd-shim-contrast-cc-v2`);
    if (shim !== `shim of ${handler?.slice(-8)}`) throw new Error(`the files of ${handler} are not whole`);
  }
}

let [trials, failures] = [0, 0];
try {
  for (const disk of values.disk) {
    for (const change of changes) {
      const base = await baseImage(disk, change);
      let [tried, failed] = [0, 0];
      for (let at = 1; ; at += every) {
        try {
          if ((await trial(base, change, at)) === undefined) break;
        } catch (error) {
          failed += 1;
          console.error(`FAILED  ${disk}, ${change.name}, ${(error as Error).message}`);
        }
        tried += 1;
      }
      console.log(`${disk}, ${change.name}: ${tried} cuts, ${failed} failures`);
      [trials, failures] = [trials + tried, failures + failed];
    }
  }
} finally {
  for (const mounted of mounts) mounted.unmount();
  models.close();
  fs.rmSync(directory, { recursive: true, force: true });
}
console.log(`${trials} power cuts, ${failures} failures`);
process.exitCode = failures === 0 ? 0 : 1;
