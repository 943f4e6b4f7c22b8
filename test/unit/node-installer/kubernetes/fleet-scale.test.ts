import { expect, test } from "vitest";
import { simulateFleet } from "../../../fakes/simulated-fleet.ts";

/* The real queue, tickets and reporter of many installers on one API server in memory, by a virtual clock. */

test.each([50, 200])(
  "%i nodes: few requests and writes for each, tickets are not left unused, and none is exceeded",
  async (nodes) => {
    const { states, mostBetween, seconds, idealSeconds, perNode, rollout } = await simulateFleet({
      ...{ nodes, atOnce: 20, holdMs: 3_000 },
    });
    expect(states).toEqual({ ready: nodes });
    expect(mostBetween).toBeLessThanOrEqual(20);
    expect(perNode(rollout.requests)).toBeLessThanOrEqual(60);
    expect(perNode(rollout.writes)).toBeLessThanOrEqual(6);
    expect(perNode(rollout.nodeWrites)).toBeLessThanOrEqual(3);
    // They come within 5 s, and the last few look a moment too late.
    expect(seconds).toBeLessThanOrEqual(1.1 * idealSeconds + 8);
  },
);

test("in the steady state a node asks at most four times in an hour, and writes nothing", async () => {
  const { steady, steadyHours } = await simulateFleet({ nodes: 4, atOnce: 4, holdMs: 3_000, steadyHours: 6 });
  expect(steady.requests / 4 / steadyHours).toBeLessThanOrEqual(4);
  expect(steady.writes).toBe(0);
});

test("an API server that is away for five minutes makes a rollout slower and fails nothing", async () => {
  const away = [10_000, 310_000] as const;
  const there = await simulateFleet({ nodes: 100, atOnce: 10, holdMs: 3_000 });
  const { states, mostBetween, seconds, rollout } = await simulateFleet({
    nodes: 100,
    atOnce: 10,
    holdMs: 3_000,
    away,
  });
  expect(states).toEqual({ ready: 100 });
  expect(mostBetween).toBeLessThanOrEqual(10);
  expect(seconds).toBeLessThan(there.seconds + 300 + 180);
  expect(rollout.refused / 100).toBeLessThan(20);
});

test("an API server that takes few requests in a second makes it slower and fails nothing", async () => {
  const { states, mostBetween, rollout } = await simulateFleet({
    ...{ nodes: 100, atOnce: 10, holdMs: 3_000, mostPerSecond: 40 },
  });
  expect(states).toEqual({ ready: 100 });
  expect(mostBetween).toBeLessThanOrEqual(10);
  expect(rollout.refused).toBeGreaterThan(100);
});

test.each([
  ["behind nodes that are ready, new ones take no longer than their own work", 20, 11],
  ["the first of a group take turns until one of them is ready, then the others go", 0, 30],
])("%s, however many join at once", async (_, ready, mostSeconds) => {
  const { states, longestSeconds, mostBetween, perNode, rollout } = await simulateFleet({
    ...{ nodes: 100, atOnce: 1, holdMs: 10_000, comeWithinMs: 20_000, join: { ready } },
  });
  expect(states).toEqual({ ready: 100 });
  expect(longestSeconds).toBeLessThan(mostSeconds);
  expect(mostBetween).toBeGreaterThan(20);
  expect(perNode(rollout.requests)).toBeLessThanOrEqual(60);
});
