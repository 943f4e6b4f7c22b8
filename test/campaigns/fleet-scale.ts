/**
 * What installers cost the API server, by the fleet's size: the queue, tickets and reports of the product itself, on an
 * API server in memory and a virtual clock. The same numbers in each run.
 *
 *   node test/campaigns/fleet-scale.ts [NODES:AT_ONCE:SECONDS …]
 *
 * Default: 50, 500 and 5,000 nodes, 50 at once, 3 s each; then 500 that join within a minute, with the startup taint and
 * without. Fails if a figure is worse than `docs/operations.md` says.
 */
import { simulateFleet } from "../fakes/simulated-fleet.ts";

const given = process.argv.slice(2);
const sizes = (given.length > 0 ? given : ["50:50:3", "500:50:3", "5000:50:3"]).map((size) =>
  size.split(":").map(Number),
);

console.log("nodes  at once  rollout s  ideal s  requests/node  Node writes/node  etcd writes/node  peak/s");
for (const [nodes = 50, atOnce = 50, seconds = 3] of sizes) {
  const result = await simulateFleet({ nodes, atOnce, holdMs: 1_000 * seconds });
  const { rollout, perNode, peakPerSecond, idealSeconds, mostBetween } = result;
  const [requests, writes] = [perNode(rollout.requests), perNode(rollout.writes)];
  const row = [nodes, atOnce, result.seconds.toFixed(0), idealSeconds, requests.toFixed(1)];
  console.log([...row, perNode(rollout.nodeWrites).toFixed(1), writes.toFixed(1), peakPerSecond].join("  "));
  if (mostBetween > atOnce) throw new Error(`${mostBetween} nodes were between edit and commit, not ${atOnce}`);
  if (requests > 60 || writes > 6) throw new Error(`${nodes} nodes: more than 60 requests or 6 writes for each`);
}
const { steady, steadyHours } = await simulateFleet({ nodes: 20, atOnce: 20, holdMs: 3_000, steadyHours: 24 });
console.log(
  `steady: ${(steady.requests / 20 / steadyHours).toFixed(2)} requests/node and hour, ${steady.writes} writes`,
);

console.log("500 nodes join within a minute, one at once, 10 s each: s until the last serves, s that the slowest took");
for (const join of [{ ready: 100 }, { ready: 0 }, undefined]) {
  const joining = { nodes: 500, atOnce: 1, holdMs: 10_000, comeWithinMs: 60_000, ...(join !== undefined && { join }) };
  const { seconds, longestSeconds, perNode, rollout } = await simulateFleet(joining);
  const how = join === undefined ? "without a startup taint" : `with it, ${join.ready} others ready`;
  const figures = `${seconds.toFixed(0)}  ${longestSeconds.toFixed(1)}  ${perNode(rollout.requests).toFixed(1)} requests/node`;
  console.log(`${how}: ${figures}`);
  if (join !== undefined && longestSeconds > (join.ready > 0 ? 11 : 30))
    throw new Error("new nodes waited for each other");
}
