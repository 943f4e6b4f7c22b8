import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { openCri } from "../../node-installer/containerd/cri.ts";
import { CriError } from "../../node-installer/containerd/cri-error.ts";
import { editConfiguration } from "../../node-installer/containerd/edit.ts";
import { readServing, type ServingState, serves } from "../../node-installer/containerd/serving.ts";
import { type ContainerdVersion, containerdVersions } from "../../runtime/containerd-versions.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { containerdPrograms } from "../../tools/programs/pinned.ts";
import { aks, snp, tdx } from "../unit/node-installer/containerd/entries.ts";

// A dump shows what containerd would load; these daemons really start and report what they have loaded. They have their own
// directories and no systemd, and start no containers.

let directory: string;
let daemon: ChildProcess | undefined;

afterEach(async () => {
  if (daemon !== undefined && running(daemon)) {
    daemon.kill("SIGKILL");
    await once(daemon, "exit");
  }
  daemon = undefined;
  rmSync(directory, { recursive: true, force: true });
});

const running = ({ exitCode, signalCode }: ChildProcess): boolean => exitCode === null && signalCode === null;

/** Starts a containerd with a configuration that has our handlers, and asks it what it serves. */
async function started(minor: ContainerdVersion, section: string): Promise<ServingState | CriError> {
  directory = mkdtempSync(join(tmpdir(), "containerd-"));
  const [file, socket, log] = ["config.toml", "c.sock", "log"].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  mkdirSync(join(directory, "cni"));
  const text = `version = 2
root = "${directory}/root"
state = "${directory}/state"
[grpc]
  address = "${socket}"
[plugins."io.containerd.grpc.v1.cri".cni]
  conf_dir = "${directory}/cni"
${section}`;
  const context = { file, kind: "root", containerdVersion: `${minor}.0` } as const;
  writeFileSync(file, editConfiguration(Buffer.from(text), [snp, tdx, aks], context) ?? "");
  const binary = join(await containerdPrograms(minor, toStderr), "containerd");
  daemon = spawn("sh", ["-c", `exec "$0" -c "$1" 2>"$2"`, binary, file, log], { stdio: "ignore" });
  const cri = openCri(socket);
  for (;;) {
    const answer = await readServing(cri, 5_000).catch((error: unknown) => error);
    if (!(answer instanceof Error)) return answer as ServingState;
    if (answer instanceof CriError && answer.withoutPlugin) return answer;
    if (!running(daemon)) throw new Error(`containerd ended:\n${readFileSync(log, "utf8")}`);
    await delay(50);
  }
}

const runc =
  '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\n  runtime_type = "io.containerd.runc.v2"\n';

describe.each([...containerdVersions])("containerd %s", (minor) => {
  test.each([
    ["beside a runtime of the file's own", runc],
    ["where the file names none", ""],
  ])("serves our handlers %s", async (_, section) => {
    const state = await started(minor, section);
    if (state instanceof Error) throw state;
    expect(serves(state, [snp, tdx, aks])).toEqual([]);
    expect(state.runtimeReady).toBe(true);
    expect(state.defaultRuntime).toBe("runc");
    expect(state.handlers.runc?.runtimeType).toBe("io.containerd.runc.v2");
  });

  test("says when its CRI plugin is not running", async () => {
    const broken = `${runc}[plugins."io.containerd.grpc.v1.cri".containerd]\n  default_runtime_name = "gone"\n`;
    expect(await started(minor, broken)).toMatchObject({ name: "CriError", withoutPlugin: true });
  });
});
