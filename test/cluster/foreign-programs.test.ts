import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { restartsPath } from "../../node-installer/host/restart-budget.ts";
import { buildPrograms, bundle } from "../../tools/image/bundle.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { type GoProgram, goProgram } from "../../tools/programs/go.ts";
import type { Fault, FaultyEnd } from "./faulty-installer.ts";
import { until, useCluster } from "./harness.ts";
import { configPath, handlersOf, NodeWithInstaller } from "./installer-on-node.ts";
import { type SmallPayload, smallPayload, specOf } from "./small-payloads.ts";

/**
 * Other programs that write containerd's file × the moment at which they do: before an installation, while it waits for the
 * node's turn, between its edit and its restart, between its restart and its commit, after it. In no case is the CRI down
 * when the installer comes to rest, is anything of what the program wrote lost, or is containerd restarted more often than
 * the budget allows; and when the program rests, the next attempt installs, and an uninstallation leaves what the program
 * would have left without us. Prints the table.
 *
 * On containerd 1.7 one moment is tried with each program, another one for each; with WHOLE_TABLE=1 all of them, but for
 * nvidia-ctk 1.20: 1.7 lets its drop-in replace the whole section, so that an installation after it is refused.
 */
const nodes = [
  {
    name: "node-1",
    containerd: "2.4",
    programs: ["nvidia-ctk 1.17", "nvidia-ctk 1.20", "containerd config migrate", "a TOML re-serialiser"],
  },
  { name: "node-2", containerd: "2.4", programs: ["Ansible, now and then", "ExecStartPre=cp", "a path unit"] },
  {
    name: "node-3",
    containerd: "1.7",
    programs: [
      "nvidia-ctk 1.17",
      "a TOML re-serialiser",
      "Ansible, now and then",
      "ExecStartPre=cp",
      "nvidia-ctk 1.20",
      "a path unit",
    ],
  },
] as const;
const cluster = useCluster(
  "foreign-programs",
  nodes.map(({ name, containerd }) => ({ name, containerd })),
);

const golden = "/etc/golden.toml";
const beside = "/etc/beside.toml";
const dropIn = "/etc/systemd/system/containerd.service.d/10-golden.conf";
const watcher = "/etc/systemd/system/golden";
const rewriter = "/opt/test/node /opt/test/toml-rewriter.mjs";
const nvidiaDropIn = "99-nvidia.toml";
const folderOf = (file: string) => (file === beside ? "/etc/beside.d" : "/etc/containerd/conf.d");
const restart = "systemctl reset-failed containerd; systemctl restart containerd";

interface Program {
  /** What it makes of a file. */
  writes: (file: string) => string;
  /** Whether it puts a file of its own in the place of containerd's, and how it begins to do so by itself. */
  keeps?: { begins?: string };
  /** Whoever runs it then restarts containerd. */
  restarts?: boolean;
}
/** Later than the daemon's start, by more than clocks differ: only then does a file's time tell that it is not loaded. */
const later = `started=$(date -d "$(systemctl show --value --property=ActiveEnterTimestamp containerd)" +%s)
until [ "$(date +%s)" -gt $((started + 3)) ]; do sleep 0.2; done`;
const copy = (file: string) => `cmp -s ${golden} ${file} || cp ${golden} ${file}`;

const programs: Record<(typeof nodes)[number]["programs"][number], Program> = {
  "nvidia-ctk 1.17": { writes: (file) => `/opt/test/nvidia-toolkit-1.17 ${file} ${file}`, restarts: true },
  "nvidia-ctk 1.20": {
    writes: (file) => `/opt/test/nvidia-toolkit-1.20 ${file} ${folderOf(file)}/${nvidiaDropIn}`,
    restarts: true,
  },
  "containerd config migrate": {
    writes: (file) => `containerd -c ${file} config migrate >${file}.new; mv ${file}.new ${file}`,
    restarts: true,
  },
  "a TOML re-serialiser": { writes: (file) => `${later}\n${rewriter} ${file}` },
  "Ansible, now and then": { writes: copy, keeps: {}, restarts: true },
  "ExecStartPre=cp": {
    writes: copy,
    keeps: {
      begins: `mkdir -p $(dirname ${dropIn})
printf '[Service]\\nExecStartPre=/bin/cp ${golden} ${configPath}\\n' >${dropIn}
systemctl daemon-reload`,
    },
    restarts: true,
  },
  "a path unit": {
    writes: copy,
    keeps: {
      begins: `printf '[Path]\\nPathChanged=${configPath}\\n' >${watcher}.path
printf "[Service]\\nType=oneshot\\nExecStart=/bin/sh -c '${copy(configPath)}'\\n" >${watcher}.service
systemctl daemon-reload
systemctl start golden.path`,
    },
    restarts: true,
  },
};

/** In the installer; before and after it, the program acts while no installer runs. */
const moments: [string, Fault | "before" | "after"][] = [
  ["before", "before"],
  ["while waiting", { point: "wait for the ticket", occurrence: 1, when: "after" }],
  ["edit … restart", { point: "step restart", occurrence: 1, when: "before" }],
  ["restart … commit", { point: "step commit", occurrence: 1, when: "before" }],
  ["after", "after"],
];

/** NVIDIA's own code, of the last version that edits containerd's file itself, and of one that makes a drop-in. */
const nvidiaToolkits: GoProgram[] = ["1.17.8", "1.20.2"].map((version) => {
  const name = `nvidia-toolkit-${version.replace(/\.\d+$/, "")}`;
  return { name, version, module: join(import.meta.dirname, "modules", name), packages: ["."] };
});

let directory: string;
let payload: SmallPayload;
let spec: string;
const installers = new Map<string, NodeWithInstaller>();
const head = ["program", "containerd", "moment", "restarts", "serves", "file", "status"];
const rows: string[][] = [];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "foreign-programs-"));
  payload = await smallPayload(directory, "one");
  spec = specOf("workers", [payload.runtime]);
  const { nodeInstaller } = await buildPrograms();
  const toolkits = await Promise.all(nvidiaToolkits.map(async (one) => join(await goProgram(one, toStderr), one.name)));
  const bundled = ["faulty-installer", "toml-rewriter"].map((name) => ({
    from: `test/cluster/${name}.ts`,
    to: join(directory, `${name}.mjs`),
  }));
  await bundle(bundled);
  for (const { name } of nodes) {
    const node = new NodeWithInstaller(cluster(), name);
    await node.prepare([nodeInstaller, ...toolkits, ...bundled.map(({ to }) => to)], [payload]);
    // On a busy machine a start may take longer than systemd's usual limit.
    await node.write("/etc/systemd/system/containerd.service.d/patient.conf", "[Service]\nTimeoutStartSec=infinity\n");
    // A file of an administrator's, and what the programs that keep theirs put in its place.
    const original = (await node.read(configPath)) ?? "";
    const id = /\[plugins\."([^"]*)"\.containerd\.runtimes\.runc\]/.exec(original)?.[1];
    const theirs = `[plugins."${id}".containerd.runtimes.theirs]\n  runtime_type = "io.containerd.runc.v2"\n`;
    await node.write(golden, `${original}# kept by somebody else\n${theirs}`);
    await node.keep("empty");
    installers.set(name, node);
  }
});
afterAll(async () => {
  const place = ([program, containerd, moment]: string[]) =>
    nodes.findIndex((node) => node.containerd === containerd && node.programs.some((one) => one === program)) * 1000 +
    Object.keys(programs).indexOf(program ?? "") * 10 +
    moments.findIndex(([one]) => one === moment);
  const table = [head, ...rows.toSorted((one, other) => place(one) - place(other))];
  const widths = head.map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0)));
  const lines = table.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  "));
  toStderr(`\n${lines.join("\n")}`);
  await rm(directory, { recursive: true, force: true });
});

describe.concurrent.each(nodes)("$name, containerd $containerd", ({ name, containerd, programs: its }) => {
  const isWhole = containerd !== "1.7" || process.env.WHOLE_TABLE !== undefined;
  describe.each(its.map((title, place) => ({ title, place })))("$title", { concurrent: false }, ({ title, place }) => {
    const program = programs[title];
    const { keeps } = program;
    const node = () => installers.get(name) as NodeWithInstaller;
    const sh = (script: string) => node().run("sh", "-ec", script);
    // What is imported has two names here, and some releases print the file's own among them.
    const dump = async (file: string) =>
      (await node().run("containerd", "-c", file, "config", "dump")).replace(/^imports = .*$/m, "");
    /** What the refusal to remove a handler says that another program has copied. */
    const deletesCopy = () =>
      `${rewriter} ${folderOf(configPath)}/${nvidiaDropIn} ${payload.runtime.handler}\n${restart}`;
    const acts = [keeps?.begins ?? "", program.writes(configPath), program.restarts ? restart : ""].join("\n");
    const stops = `systemctl disable --now golden.path 2>/dev/null || true
rm -f ${dropIn} ${watcher}.*
systemctl daemon-reload`;
    const isUp = async () => (await node().runtimes()) !== undefined;
    const up = () => until("the CRI answers", isUp);
    const restarts = async () => ((await node().read(restartsPath)) ?? "").split("\n").length - 1;

    const run = async (fault?: Fault) => {
      const { stdout, stderr } = await node().faultyInstaller(spec, {
        ...(fault && { fault: { ...fault, command: acts, survives: true } }),
        waits: fault?.point === "wait for the ticket",
      });
      const { code = "installed" } = JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as FaultyEnd;
      // A restart by the program itself may still go on.
      await until(`the CRI answers after "${code}": ${stderr}`, isUp);
      // Nobody else's change is taken for a fault of ours.
      expect(["installed", "pending-changes", "file-contested", "restart-budget"], stderr).toContain(code);
      return { code, restarts: await restarts() };
    };

    const isTried = (_: unknown, moment: number) =>
      containerd !== "1.7" || (isWhole && title !== "nvidia-ctk 1.20") || moment === place % moments.length;
    test.each(moments.filter(isTried))("%s", async (moment, when) => {
      await sh(stops);
      await sh(`rm -f ${[beside, configPath].map((file) => `${folderOf(file)}/${nvidiaDropIn}`).join(" ")}`);
      await node().reset("empty");
      await sh(`cp -p ${keeps ? golden : configPath} ${beside}\n${restart}`);
      await up();
      if (keeps === undefined) await sh(program.writes(beside));

      if (when === "before") await sh(acts);
      const runs = [await run(typeof when === "string" ? undefined : when)];
      if (when === "after") {
        expect(runs[0]?.code).toBe("installed");
        await sh(acts);
      }
      await up();
      // Until it comes to rest: the same end twice, without a restart between them.
      do {
        if (keeps !== undefined && keeps.begins === undefined) await sh(acts);
        await up();
        runs.push(await run());
      } while (!isDeepStrictEqual(runs.at(-1), runs.at(-2)) && runs.length < 12);
      const codes = runs.map(({ code }) => code);
      const file = await node().read(configPath);
      const served = (await node().runtimes()) ?? [];
      const spent = await restarts();
      rows.push([
        title,
        containerd,
        moment,
        String(spent),
        served.map((one) => (one === payload.runtime.handler ? "ours" : one)).join(", "),
        handlersOf(file).length > 0 ? "theirs and ours" : "theirs",
        [...new Set(codes)].join(", then "),
      ]);
      expect(runs.length).toBeLessThan(12);
      expect(spent).toBeLessThanOrEqual(6);

      // The program rests, and somebody does what the refusal says.
      await sh(stops);
      if (codes.at(-1) !== "installed") await sh(restart);
      await up();
      const last = await node().installer("install", spec, "--retry");
      expect(last.code, last.stderr).toBe(0);
      expect(await node().served()).toEqual([payload.runtime.handler]);
      const copies = await node().read(`${folderOf(configPath)}/${nvidiaDropIn}`);
      if (copies?.includes(payload.runtime.handler)) {
        const refused = await node().installer("uninstall", spec);
        expect(refused.stderr).toContain(`${nvidiaDropIn} has a copy of its table: delete the copy and restart`);
        await sh(deletesCopy());
        await up();
      }
      const gone = await node().installer("uninstall", spec);
      expect(gone.code, gone.stderr).toBe(0);
      expect(await dump(configPath)).toBe(await dump(beside));
      if (keeps !== undefined) expect(await node().read(configPath)).toBe(await node().read(golden));
      expect(await node().read(configPath)).not.toContain("contrast");
      expect(await node().served()).toEqual([]);
    });
  });
});
