import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, posix } from "node:path";
import type { Cri } from "../../node-installer/containerd/cri.ts";
import { CriError } from "../../node-installer/containerd/cri-error.ts";
import { parseDocument, type Table, tableAt } from "../../node-installer/containerd/document.ts";
import { runtimeSectionOf } from "../../node-installer/containerd/plugins.ts";
import { guardName } from "../../node-installer/host/guard.ts";
import type { Host, RunResult } from "../../node-installer/host/host.ts";
import { containerdOn, type Daemon } from "../../node-installer/install/daemon.ts";
import type { Environment } from "../../node-installer/install/environment.ts";
import { createLog } from "../../node-installer/install/log.ts";
import { type Cluster, withoutKubernetes } from "../../node-installer/kubernetes/connect.ts";
import { sha256 } from "../../runtime/canonical.ts";
import type { InstallSpec, RuntimeSpec } from "../../runtime/spec.ts";
import { defaultConfiguration } from "./containerd-dump.ts";
import { dumpWithImports } from "./containerd-load.ts";
import { criOf } from "./cri.ts";
import { runGuard } from "./guard-run.ts";
import { type FakeProgram, MemoryHost } from "./memory-host.ts";
import { adminsFile, configPath, type NodeShape, plainShape } from "./node-shapes.ts";
import { enableUnits } from "./systemctl.ts";

export { adminsFile, configPath };

/**
 * A node on a map: systemd, containerd and its CRI as small models around a `MemoryHost`. This containerd loads its file
 * when it starts, fails if it refuses that, and its CRI is missing if the file has a handler that `breaks`.
 */
export class MemoryNode {
  readonly host: MemoryHost;
  readonly shape: NodeShape;
  readonly payloads: string;
  readonly log: string[] = [];
  /** Sandboxes by handler, as `namespace/name`. */
  sandboxes: { handler: string; name: string }[] = [];
  /** Handlers that break containerd's CRI plugin. */
  breaks = new Set<string>();
  /** What this build of containerd refuses besides what all do: its words for a file that it does not load. */
  refuses: (text: string) => string | undefined = () => undefined;
  /** Runtimes that containerd no longer serves once it has loaded one of ours. */
  displaced = new Set<string>();
  starts = 0;
  /** What the daemon that runs says it is, and what its binary is on disk. */
  runs: string;
  binary: string;
  /** How long a start takes until systemd calls the unit active; it serves nothing before. */
  startsInMs = 0;
  /** What the unit does before it starts containerd, such as `ExecStartPre=`. */
  beforeStart: () => void = () => undefined;
  private startedAt = 0;
  /** Whether systemd runs the guard from time to time. */
  private guarded = false;
  private loaded: Table | undefined;
  private failed = false;

  private readonly isCopy: boolean;

  /** @param shape the text of containerd's file on a plain node, or a node of another kind */
  constructor(shape: string | undefined | NodeShape = adminsFile, original?: MemoryNode) {
    this.shape = typeof shape === "object" ? shape : plainShape("plain", shape);
    const { files, version, watched } = this.shape;
    const programs = { systemctl: this.systemctl, containerd: this.containerd };
    const all = { "/etc/systemd/system/mark": "", "/run/systemd/system/mark": "", ...files };
    this.host = original?.host.copy(programs) ?? new MemoryHost({ files: all, programs });
    this.isCopy = original !== undefined;
    this.payloads = original?.payloads ?? mkdtempSync(join(tmpdir(), "payloads-"));
    [this.runs, this.binary] = [version, version];
    if (original === undefined) this.start();
    else {
      const { starts, startedAt, guarded, loaded, failed, runs, binary, breaks, displaced } = original;
      Object.assign(this, { starts, startedAt, guarded, loaded, failed, runs, binary });
      Object.assign(this, { breaks: new Set(breaks), displaced: new Set(displaced) });
    }
    const isLoaded = (path: string) => posix.dirname(path) === watched && /\/[^.][^/]*\.toml$/.test(path);
    this.host.onChange = (path) => {
      if (isLoaded(path)) this.start();
    };
  }

  /** The same node again, as it is now. Its payloads go with the original. */
  copy(): MemoryNode {
    return new MemoryNode(this.shape, this);
  }

  close(): void {
    if (!this.isCopy) rmSync(this.payloads, { recursive: true });
  }

  /** Which of our handlers the daemon serves; undefined while the CRI is missing. */
  get served(): string[] | undefined {
    if (this.loaded === undefined) return undefined;
    return Object.keys(this.runtimes).filter((name) => name.startsWith("contrast-"));
  }

  start(): void {
    this.starts += 1;
    this.runs = this.binary;
    this.beforeStart();
    this.shape.render?.(this.host);
    this.startedAt = this.host.time;
    this.loaded = undefined;
    const { configuration } = this.shape;
    const text = this.host.text(configuration);
    const { code, stdout = "" } = text === undefined ? { stdout: this.defaults } : this.dump(text, configuration);
    this.failed = code !== undefined;
    if (this.failed) return;
    this.loaded = parseDocument(stdout, configuration);
    if (Object.keys(this.runtimes).some((name) => this.breaks.has(name))) this.loaded = undefined;
  }

  environment(spec: InstallSpec, cluster: Cluster = withoutKubernetes(() => this.host.now())): Environment {
    return {
      host: this.host,
      daemon: this.daemon(spec),
      spec,
      specHash: createHash("sha256").update(JSON.stringify(spec)).digest("hex"),
      payloads: this.payloads,
      cluster,
      log: createLog(this.host, spec.group, (line) => this.log.push(line)),
      checkHost: async () => undefined,
      unfit: async () => [],
    };
  }

  /** Its containerd; `reading`: the host through which its files are read, such as one that records. */
  daemon({ distribution }: InstallSpec, reading: Host = this.host): Daemon {
    const { locate, read } = containerdOn(reading, distribution);
    return { ...containerdOn(this.host, distribution, async () => this.cri), locate, read };
  }

  /** A runtime of two small files, which are added to the image. */
  runtime(digits: string, content = `shim of ${digits}`): RuntimeSpec {
    const handler = `contrast-cc-metal-qemu-snp-${digits}`;
    const files = [
      { role: "shim" as const, path: "bin/containerd-shim-contrast-cc-v2", mode: "0755" as const, content },
      { role: "kernel" as const, path: "share/kata-kernel", mode: "0644" as const, content: "kernel" },
    ];
    for (const file of files) {
      const path = join(this.payloads, `payload-${digits}`, file.path);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, file.content);
    }
    const directory = `/opt/edgeless/${handler}`;
    return {
      handler,
      platform: "metal-qemu-snp",
      payload: `payload-${digits}`,
      files: files.map((file) => ({
        role: file.role,
        path: file.path,
        mode: file.mode,
        size: Buffer.byteLength(file.content),
        sha256: sha256(file.content),
      })),
      kataConfig: { path: "etc/configuration.toml", content: "[hypervisor.qemu]\n" },
      containerd: {
        runtimeType: "io.containerd.contrast-cc.v2",
        runtimePath: `${directory}/bin/containerd-shim-contrast-cc-v2`,
        podAnnotations: ["io.katacontainers.config.hypervisor.cc_init_data"],
        privilegedWithoutHostDevices: true,
        options: { ConfigPath: `${directory}/etc/configuration.toml` },
      },
      host: { tee: "snp", virtualization: "kvm", gpu: false, guestPull: true },
    };
  }

  spec(runtimes: RuntimeSpec[], group = "workers"): InstallSpec {
    return {
      schemaVersion: 1,
      group,
      distribution: this.shape.distribution,
      atOnce: 1,
      runtimes,
      verifySandbox: false,
    };
  }

  /** Power is back: systemd starts what is enabled, the guard first. */
  boot(): void {
    const enabled = (target: string, unit: string) =>
      this.host.text(`/etc/systemd/system/${target}.target.wants/${unit}`) !== undefined;
    this.guarded = enabled("timers", `${guardName}.timer`);
    if (enabled("multi-user", `${guardName}.service`)) this.runScript();
    this.start();
  }

  /** Time passes: the guard's timer runs it, if it was started. */
  runGuard(): void {
    if (this.guarded) this.runScript();
  }

  private runScript(): void {
    if (runGuard(this.host) === this.shape.unit) this.start();
  }

  private get isStarting(): boolean {
    return this.host.time < this.startedAt + this.startsInMs;
  }

  get defaultRuntime(): unknown {
    return runtimeSectionOf(this.loaded)?.default_runtime_name ?? "";
  }

  /** What the daemon has loaded. */
  get runtimes(): Table {
    const all = tableAt(runtimeSectionOf(this.loaded), ["runtimes"]) ?? {};
    if (!Object.keys(all).some((name) => name.startsWith("contrast-"))) return all;
    return Object.fromEntries(Object.entries(all).filter(([name]) => !this.displaced.has(name)));
  }

  private readonly systemctl: FakeProgram = ([verb, ...args], host) => {
    enableUnits([verb ?? "", ...args], host);
    if (args.includes(`${guardName}.timer`)) {
      if (verb === "start" || verb === "restart") this.guarded = true;
      if (verb === "stop" || (verb === "disable" && args.includes("--now"))) this.guarded = false;
    }
    if (verb === "show") {
      const [active, sub, result] = this.failed
        ? ["failed", "failed", "exit-code"]
        : this.isStarting
          ? ["activating", "start", "success"]
          : ["active", "running", "success"];
      const state = `ActiveState=${active}\nSubState=${sub}\nResult=${result}`;
      const started = `ExecMainStartTimestampMonotonic=${this.startedAt * 1000}`;
      return { stdout: `${state}\nNRestarts=0\nInvocationID=${this.starts}\n${started}\n` };
    }
    if (verb === "restart" && args[0] === this.shape.unit) {
      // No program is faster.
      this.host.time += 100;
      this.start();
    }
    return {};
  };

  private readonly containerd: FakeProgram = (args, host) => {
    if (args[0] === "--version")
      return { stdout: `containerd github.com/containerd/containerd/v2 v${this.binary} 0123abc\n` };
    if (args[0] === "config") return { stdout: this.defaults };
    const [, file = ""] = args;
    return this.dump(host.text(file), file);
  };

  private get defaults(): string {
    const isVersion2 = this.binary.startsWith("1.7.");
    return isVersion2
      ? defaultConfiguration.replace("= 3", "= 2").replace("cri.v1.runtime", "grpc.v1.cri")
      : defaultConfiguration;
  }

  private dump(text: string | undefined, file: string): Partial<RunResult> {
    const refused = text === undefined ? undefined : this.refuses(text);
    return refused === undefined
      ? dumpWithImports(this.host, file, this.binary)
      : { code: 1, stderr: `containerd: ${file}: ${refused}\n` };
  }

  private readonly cri: Cri = criOf(this, (name, answer) => this.call(name, answer));

  private call<T>(name: string, answer: () => T): Promise<T> {
    return this.host.point(`probe ${name}`, () => {
      if (this.isStarting) throw new CriError("no containerd answers (ENOENT)");
      if (this.loaded === undefined) throw new CriError("containerd answers, but its CRI plugin is not running", true);
      return answer();
    });
  }
}
