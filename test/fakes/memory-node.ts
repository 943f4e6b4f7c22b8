import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Cri } from "../../node-installer/containerd/cri.ts";
import { CriError } from "../../node-installer/containerd/cri-error.ts";
import { parseDocument, type Table, tableAt } from "../../node-installer/containerd/document.ts";
import { stateDirectory } from "../../node-installer/host/files.ts";
import { armedPath, guardName } from "../../node-installer/host/guard.ts";
import type { Host, RunResult } from "../../node-installer/host/host.ts";
import { containerdOn, type Daemon } from "../../node-installer/install/daemon.ts";
import type { Environment } from "../../node-installer/install/environment.ts";
import { createLog } from "../../node-installer/install/log.ts";
import { type Cluster, withoutKubernetes } from "../../node-installer/kubernetes/connect.ts";
import { sha256 } from "../../runtime/canonical.ts";
import type { InstallSpec, RuntimeSpec } from "../../runtime/spec.ts";
import { configDump, defaultConfiguration, migrated } from "./containerd-dump.ts";
import { type FakeProgram, MemoryHost } from "./memory-host.ts";
import { enableUnits, fakeSystemctl } from "./systemctl.ts";

export const configPath = "/etc/containerd/config.toml";
const cri = "io.containerd.cri.v1.runtime";
export const adminsFile = `version = 3
# the administrator's own
[plugins."${cri}".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
`;

/**
 * A node on a map: systemd, containerd and its CRI as small models around a `MemoryHost`. This containerd loads its file
 * when it starts, fails if it refuses that, and its CRI is missing if the file has a handler that `breaks`.
 */
export class MemoryNode {
  readonly host: MemoryHost;
  readonly payloads = mkdtempSync(join(tmpdir(), "payloads-"));
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
  runs = "2.1.4";
  binary = "2.1.4";
  /** How long a start takes until systemd calls the unit active; it serves nothing before. */
  startsInMs = 0;
  /** What the unit does before it starts containerd, such as `ExecStartPre=`. */
  beforeStart: () => void = () => undefined;
  private startedAt = 0;
  /** Whether systemd runs the guard from time to time. */
  private guarded = false;
  private loaded: Table | undefined;
  private failed = false;

  constructor(file: string | undefined = adminsFile) {
    this.host = new MemoryHost({
      files: {
        "/etc/systemd/system/containerd.service": "[Service]\nExecStart=/usr/bin/containerd\nKillMode=process\n",
        "/run/systemd/system/mark": "",
        ...(file !== undefined && { [configPath]: file }),
      },
      programs: { systemctl: this.systemctl, containerd: this.containerd },
    });
    this.start();
  }

  close(): void {
    rmSync(this.payloads, { recursive: true });
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
    this.startedAt = this.host.time;
    this.loaded = undefined;
    const text = this.host.text(configPath);
    this.failed = text !== undefined && this.dump(text, configPath).code !== undefined;
    if (this.failed) return;
    this.loaded = parseDocument(text === undefined ? defaultConfiguration : migrated(text), configPath);
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
    return { schemaVersion: 1, group, distribution: { name: "containerd" }, atOnce: 1, runtimes, verifySandbox: false };
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

  /** systemd runs the guard: the script that is on the host, with sh, on a copy of the files that it works with. */
  private runScript(): void {
    const script = this.host.text(`${stateDirectory}/guard.sh`);
    if (script === undefined || this.host.text(armedPath) === undefined) return;
    const root = mkdtempSync(join(tmpdir(), "guard-"));
    try {
      for (const [path, node] of this.host.nodes) {
        if (!/^\/(etc\/containerd|var|run)(\/|$)/.test(path)) continue;
        if (node.kind === "directory") mkdirSync(join(root, path), { recursive: true });
        if (node.kind === "file") {
          mkdirSync(dirname(join(root, path)), { recursive: true });
          const text = node.content.toString("latin1");
          const armed = path.endsWith("guard.armed");
          writeFileSync(
            join(root, path),
            armed ? text.replaceAll(/^(file|backup)=\//gm, `$1=${root}/`) : text,
            "latin1",
          );
        }
      }
      const systemctl = fakeSystemctl(join(root, "bin"));
      // Its places stand in its first line.
      const moved = script.replace(/^set -- .*$/m, (line) => line.replaceAll(/(?<=[ '])\//g, `${root}/`));
      writeFileSync(join(root, "guard.sh"), moved);
      systemctl.run("sh", [join(root, "guard.sh")]);
      const under = (path: string) => readTree(join(root, path)).map((name) => `${path}${name}`);
      const kept = new Set([...under("/etc/containerd"), ...under("/var")]);
      for (const [path, node] of [...this.host.nodes]) {
        if (/^\/(etc\/containerd|var)\//.test(path) && node.kind === "file" && !kept.has(path))
          this.host.nodes.delete(path);
      }
      for (const path of kept) {
        const text = readFileSync(join(root, path), "latin1").replaceAll(root, "");
        if (this.host.text(path) !== text) this.host.put(path, text);
      }
      if (systemctl.calls().some((call) => call.includes("restart containerd.service"))) this.start();
    } finally {
      rmSync(root, { recursive: true });
    }
  }

  private get isStarting(): boolean {
    return this.host.time < this.startedAt + this.startsInMs;
  }

  private get defaultRuntime(): unknown {
    return tableAt(this.loaded, ["plugins", cri, "containerd"])?.default_runtime_name ?? "";
  }

  private get runtimes(): Table {
    const all = tableAt(this.loaded, ["plugins", cri, "containerd", "runtimes"]) ?? {};
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
    if (verb === "restart" && args[0] === "containerd.service") {
      // No program is faster.
      this.host.time += 100;
      this.start();
    }
    return {};
  };

  private readonly containerd: FakeProgram = (args, host) => {
    if (args[0] === "--version")
      return { stdout: `containerd github.com/containerd/containerd/v2 v${this.binary} 0123abc\n` };
    if (args[0] === "config") return { stdout: defaultConfiguration };
    const [, file = ""] = args;
    return this.dump(host.text(file), file);
  };

  private dump(text: string | undefined, file: string): Partial<RunResult> {
    const refused = text === undefined ? undefined : this.refuses(text);
    return refused === undefined ? configDump(text, file) : { code: 1, stderr: `containerd: ${file}: ${refused}\n` };
  }

  private readonly cri: Cri = {
    version: () => this.call("Version", () => ({ runtimeName: "containerd", runtimeVersion: `v${this.runs}` })),
    status: () =>
      this.call("Status", () => {
        const runtimes = Object.entries(this.runtimes).map(([name, runtime]) => {
          const table = runtime as Table;
          return [
            name,
            {
              runtimeType: table.runtime_type,
              runtimePath: table.runtime_path,
              PodAnnotations: table.pod_annotations,
              privileged_without_host_devices: table.privileged_without_host_devices ?? false,
              snapshotter: table.snapshotter,
              options: table.options,
            },
          ];
        });
        const config = {
          containerd: { defaultRuntimeName: this.defaultRuntime, runtimes: Object.fromEntries(runtimes) },
        };
        const conditions = ["RuntimeReady", "NetworkReady"].map((type) => ({
          type,
          status: true,
          reason: "",
          message: "",
        }));
        return { conditions, info: { config: JSON.stringify(config) } };
      }),
    listSandboxes: () =>
      this.call("ListPodSandbox", () =>
        this.sandboxes.map(({ handler, name: full }, index) => {
          const [namespace = "", name = ""] = full.split("/");
          return {
            id: String(index),
            metadata: { name, namespace, uid: "", attempt: 0 },
            state: "SANDBOX_READY",
            runtimeHandler: handler,
          };
        }),
      ),
    runSandbox: () => this.call("RunPodSandbox", () => "1"),
    stopSandbox: () => this.call("StopPodSandbox", () => undefined),
    removeSandbox: (id) =>
      this.call("RemovePodSandbox", () => {
        this.sandboxes = this.sandboxes.filter((_, index) => String(index) !== id);
      }),
    close: () => undefined,
  };

  private call<T>(name: string, answer: () => T): Promise<T> {
    return this.host.point(`probe ${name}`, () => {
      if (this.isStarting) throw new CriError("no containerd answers (ENOENT)");
      if (this.loaded === undefined) throw new CriError("containerd answers, but its CRI plugin is not running", true);
      return answer();
    });
  }
}

function readTree(directory: string, below = ""): string[] {
  return readdirSync(join(directory, below)).flatMap((name) => {
    const path = `${below}/${name}`;
    return statSync(join(directory, path)).isDirectory() ? readTree(directory, path) : [path];
  });
}
