// The installer on a real node: a run with nothing to do, its memory, and how long the CRI is unreachable.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { restartsPath } from "../../node-installer/host/restart-budget.ts";
import { nodeFlags } from "../../tools/image/build.ts";
import { buildPrograms } from "../../tools/image/bundle.ts";
import { startCluster, type TestCluster } from "../cluster/harness.ts";
import { NodeWithInstaller } from "../cluster/installer-on-node.ts";
import { smallPayload, specOf } from "../cluster/small-payloads.ts";
import { longestSilence } from "./cri-prober.ts";
import type { Benchmark } from "./measure.ts";

const rounds = 10;
const median = (times: number[]): number => times.toSorted((a, b) => a - b)[times.length >> 1] ?? Number.NaN;
const largePayload = 256 << 20;

/** As `NodeWithInstaller` puts them on the node. */
const program = ["/opt/test/node", ...nodeFlags, "/opt/test/node-installer.mjs"];
const words = ["--spec", "/opt/test/spec.json", "--payloads", "/opt/test/payloads"];

/**
 * Runs on the node: starts programs in turns, so that all see the same load on the machine; prints the times and the highest
 * anonymous memory of each. The kernel records no peak of that (its own peak also counts the program's file), so the value
 * is sampled often.
 */
const watcher = `
const { spawn } = require("node:child_process");
const { readFileSync } = require("node:fs");
const [rounds, programs] = JSON.parse(process.argv[1]);
const once = (argv) => new Promise((resolve, reject) => {
  const begin = performance.now();
  const child = spawn(argv[0], argv.slice(1), { stdio: ["ignore", "ignore", "inherit"] });
  let peak = 0;
  const look = setInterval(() => {
    try {
      const text = readFileSync("/proc/" + child.pid + "/status", "utf8");
      peak = Math.max(peak, Number(/RssAnon:\\s+(\\d+)/.exec(text)?.[1] ?? 0) / 1024);
    } catch {}
  }, 2);
  child.on("exit", (code) => {
    clearInterval(look);
    if (code === 0) resolve({ time: performance.now() - begin, peak });
    else reject(new Error(argv.join(" ") + " ended with " + code));
  });
});
(async () => {
  const runs = programs.map(() => []);
  for (let round = 0; round < rounds; round += 1)
    for (const [index, argv] of programs.entries()) runs[index].push(await once(argv));
  console.log(JSON.stringify(runs.map((each) => ({ times: each.map((run) => run.time), peak: Math.max(...each.map((run) => run.peak)) }))));
})();
`;

interface Watched {
  times: number[];
  /** MiB */
  peak: number;
}

/** @param programs command lines; what they did is in the same order */
const watched = async (cluster: TestCluster, node: string, count: number, programs: string[][]): Promise<Watched[]> =>
  JSON.parse(await cluster.onNode(node, "/opt/test/node", "-e", watcher, JSON.stringify([count, programs])));

/** Every file that the installer may write, with the time of its last change, and the daemon's invocation ID. */
const traces = (cluster: TestCluster, node: string) =>
  cluster.onNode(
    node,
    "sh",
    "-c",
    "find /etc /opt/edgeless /var/lib/contrast-runtime /var/log/contrast-runtime -printf '%p %C@\\n' | sort; systemctl show containerd --property=InvocationID",
  );

export async function nodeBenchmarks(): Promise<Benchmark[]> {
  const directory = mkdtempSync(join(tmpdir(), "node-bench-"));
  const [first, second, large] = await Promise.all([
    smallPayload(directory, "first"),
    smallPayload(directory, "second"),
    smallPayload(directory, "large", { kernelBytes: largePayload }),
  ]);
  const specs = [first, second, large].map(({ runtime }) => specOf("bench", [runtime]));
  const cluster = await startCluster("bench");
  try {
    const node = new NodeWithInstaller(cluster, cluster.nodes[0]?.name ?? "");
    await node.prepare([(await buildPrograms()).nodeInstaller], [first, second, large]);
    const install = async (spec = "") => {
      const { code, stdout, stderr } = await node.installer("install", spec);
      if (code !== 0) throw new Error(`install ended with ${code}: ${stdout}${stderr}`);
    };
    await install(specs[0]);
    const before = await traces(cluster, node.name);
    const [nothing, empty] = await watched(cluster, node.name, rounds, [
      [...program, "install", ...words],
      ["/opt/test/node", "-e", "0"],
    ]);
    const wrote = (await traces(cluster, node.name)) !== before;

    const socket = join(await node.root(), "run/containerd/containerd.sock");
    const [ours, bare]: [number[], number[]] = [[], []];
    for (let round = 0; round < rounds; round += 1) {
      bare.push(await longestSilence(socket, () => node.run("systemctl", "restart", "containerd.service")));
      // More restarts than a node allows in a day.
      await node.run("rm", "-f", restartsPath);
      ours.push(await longestSilence(socket, () => install(specs[(round + 1) % 2])));
    }

    await node.run("rm", "-f", restartsPath);
    await node.write("/opt/test/spec.json", specs[2] ?? "");
    const [copying] = await watched(cluster, node.name, 1, [[...program, "install", ...words]]);
    const peak = Math.max(copying?.peak ?? Number.NaN, nothing?.peak ?? Number.NaN);
    return [
      noOp(median(nothing?.times ?? []), median(empty?.times ?? []), wrote),
      {
        name: `peak anonymous memory while a payload of ${largePayload >> 20} MiB is installed`,
        ours: peak,
        unit: "MiB",
        limit: 29,
        ok: peak <= 29,
      },
      withoutCri(median(ours), median(bare)),
    ];
  } finally {
    await cluster.destroy();
    rmSync(directory, { recursive: true });
  }
}

/** What a machine's speed decides is decided for an empty program, too. */
const noOp = (ours: number, empty: number, wrote: boolean): Benchmark => ({
  name: "install with nothing to do, from the start of the program to its end",
  ours,
  reference: { name: "an empty program of Node", time: empty },
  limit: 6.5,
  ok: ours / empty <= 6.5 && !wrote,
  note: wrote ? "it WROTE something" : "nothing written",
});

function withoutCri(ours: number, bare: number): Benchmark {
  const limit = (bare + 500) / bare;
  const reference = { name: "systemctl restart containerd", time: bare };
  return { name: "CRI unreachable during an installation", ours, reference, limit, ok: ours <= bare + 500 };
}

if (import.meta.main) console.log(await nodeBenchmarks());
