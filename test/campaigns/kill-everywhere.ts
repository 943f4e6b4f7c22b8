// kill-everywhere.ts [--containerd 2.4|2.2|1.7 …]: kills the installer before and after every single point of every kind
// of change, on real nodes, one node per version of containerd; this can take hours on a small machine.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { ContainerdVersion } from "../../runtime/containerd-versions.ts";
import { buildPrograms, bundle } from "../../tools/image/bundle.ts";
import { type Breakage, breakOn, heal, makeBreakable } from "../cluster/breakable-containerd.ts";
import { startCluster } from "../cluster/harness.ts";
import { NodeWithInstaller } from "../cluster/installer-on-node.ts";
import {
  allPoints,
  type Besides,
  type Change,
  describePoint,
  killAt,
  recordPoints,
  table,
} from "../cluster/kill-points.ts";
import { smallPayload, specOf } from "../cluster/small-payloads.ts";

const { values } = parseArgs({
  options: { containerd: { type: "string", multiple: true, default: ["2.4", "1.7"] } },
});
const versions = values.containerd as ContainerdVersion[];
const group = "workers";
const directory = await mkdtemp(join(tmpdir(), "kill-everywhere-"));
const cluster = await startCluster(
  "campaign",
  versions.map((containerd) => ({ name: `node-${containerd.replace(".", "-")}`, containerd })),
);
let failures = 0;
let kills = 0;

try {
  const one = await smallPayload(directory, "one");
  const two = await smallPayload(directory, "two");
  const { nodeInstaller } = await buildPrograms();
  const faultyInstaller = join(directory, "faulty-installer.mjs");
  await bundle([{ from: "test/cluster/faulty-installer.ts", to: faultyInstaller }]);
  await Promise.all(
    cluster.nodes.map(async ({ name }) => {
      const node = new NodeWithInstaller(cluster, name);
      await node.prepare([nodeInstaller, faultyInstaller], [one, two]);
      await node.keep("empty");
      await mustWork(node, specOf(group, [one.runtime]));
      await node.keep("one");
      await makeBreakable(node);
      const both = [one.runtime.handler, two.runtime.handler].toSorted();
      const change = (words: string, from: string, wanted: string[], runtimes: (typeof one)[]): Change => ({
        name: `${words} on ${name}`,
        node,
        from,
        spec: specOf(
          group,
          runtimes.map(({ runtime }) => runtime),
        ),
        wanted,
      });
      await campaign(change("first installation", "empty", [one.runtime.handler], [one]));
      await campaign(change("second handler", "one", both, [one, two]));
      await campaign(change("another handler in its place", "one", [two.runtime.handler], [two]));
      await campaign(change("uninstallation", "one", [], []));
      for (const breakage of ["cri", "exits", "hangs"] as const)
        await campaign(change(`handler with which containerd breaks (${breakage})`, "one", [], [one, two]), breakage);

      async function campaign(what: Change, breakage?: Breakage): Promise<void> {
        await heal(node);
        if (breakage) await breakOn(node, two.runtime.handler, breakage);
        const points = allPoints(await recordPoints(what));
        console.log(`\n${what.name}: ${points.length} points`);
        for (const point of points)
          for (const besides of ["nothing", "containerd is stopped", "the power fails"] satisfies Besides[]) {
            // Before the guard is armed, it does not start a containerd that somebody else stopped.
            if (besides === "containerd is stopped" && !isArmed(points, point)) continue;
            await trial(what, { ...point, besides }, breakage === undefined);
          }
        await heal(node);
      }
    }),
  );
} finally {
  await cluster.destroy();
  await rm(directory, { recursive: true, force: true });
}
console.log(`\n${kills} kills, ${failures} failures`);
process.exitCode = failures === 0 ? 0 : 1;

async function mustWork(node: NodeWithInstaller, spec: string): Promise<void> {
  const { code, stderr } = await node.installer("install", spec, "--retry");
  if (code !== 0) throw new Error(`the next run ended with ${code}: ${stderr}`);
}

function isArmed(points: ReturnType<typeof allPoints>, point: ReturnType<typeof allPoints>[number]): boolean {
  const index = points.indexOf(point);
  const first = points.findIndex((one) => one.point.startsWith("replace "));
  const last = points.findIndex((one) => /^remove .*guard\.armed$/.test(one.point));
  return index >= first && index <= last;
}

async function trial(what: Change, point: Parameters<typeof killAt>[1], wantsNextRun: boolean): Promise<void> {
  kills += 1;
  try {
    console.log(table([await killAt(what, point)]));
    if (wantsNextRun) await mustWork(what.node, what.spec);
  } catch (error) {
    failures += 1;
    console.error(`FAILED  ${what.name}: ${describePoint(point)}: ${(error as Error).message}`);
  }
}
