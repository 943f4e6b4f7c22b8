import { describe, expect, test } from "vitest";
import { Refusal } from "../../../../runtime/refusal.ts";
import type { Wanted } from "../../../../tools/fleet/assess.ts";
import { followFleet } from "../../../../tools/fleet/follow.ts";
import type { Fleet } from "../../../../tools/fleet/observe.ts";
import { fleet, node, status, ticket, wanted } from "./fleet-fixture.ts";

/** Follows a scripted fleet, one observation a second; the last one is repeated forever. */
async function follow(script: (Fleet | Error)[], options: { wanted?: Wanted; stallMs?: number } = {}) {
  const lines: string[] = [];
  let time = 0;
  let next = 0;
  const outcome = await followFleet({
    observe: async () => {
      const fleet = script[Math.min(next, script.length - 1)];
      next += 1;
      if (fleet instanceof Error || fleet === undefined) throw fleet;
      return fleet;
    },
    wanted: options.wanted ?? wanted(),
    stallMs: options.stallMs ?? 600_000,
    print: (line) => lines.push(line),
    clock: () => time,
    delay: async (ms) => {
      time += ms;
    },
  });
  return { lines, outcome, seconds: time / 1000 };
}

describe("following a rollout", () => {
  test("says each change of each node once, and ends when all are ready", async () => {
    const copying = (percent: number) =>
      fleet([
        { ...node("a", "working"), status: status("working", { code: "payload", reason: `copied ${percent} %` }) },
      ]);
    const { lines, outcome } = await follow([
      fleet([node("a", undefined)]),
      copying(10),
      copying(60),
      fleet([node("a", "waiting")]),
      fleet([node("a", "ready")]),
    ]);
    expect(lines).toEqual([
      "a: starting: the installer has not reported yet",
      "a: working: copied 10 %",
      "a: waiting: it is waiting",
      "a: ready: it is ready",
    ]);
    expect(outcome).toMatchObject({ exitCode: 0, failures: [] });
  });

  test("stops at once when a failed node holds what the others wait for", async () => {
    const stuck = fleet([node("a", "failed"), node("b", "waiting")], { tickets: [ticket("a")] });
    const { outcome, seconds } = await follow([fleet([node("a", "working"), node("b", "waiting")]), stuck]);
    expect(outcome.exitCode).toBe(1);
    expect(outcome.failures[0]).toBe("a: failed: it is failed");
    expect(seconds).toBeLessThan(5);
  });

  test("gives up after the stall time, with each unfinished node's reason, and speaks every minute until then", async () => {
    const { outcome, lines, seconds } = await follow([fleet([node("a", "ready"), node("b", "working")])], {
      stallMs: 300_000,
    });
    expect(outcome).toMatchObject({
      exitCode: 3,
      failures: ["Nothing has changed for 300 s.", "b: working: it is working"],
    });
    expect(lines.filter((line) => line.startsWith("Still waiting: b: working"))).toHaveLength(4);
    expect(seconds).toBeLessThan(310);
  });

  test("a new reason is progress, although it gets no line", async () => {
    const copying = (n: number) =>
      fleet([{ ...node("a", "working"), status: status("working", { code: "payload", reason: `${n}` }) }]);
    const script = Array.from({ length: 30 }, (_, index) => copying(index));
    const { outcome, lines } = await follow([...script, fleet([node("a", "ready")])], { stallMs: 10_000 });
    expect(outcome.exitCode).toBe(0);
    expect(lines).toEqual(["a: working: 0", "a: ready: it is ready"]);
  });

  test("an image that cannot be pulled is no progress, although kubelet's reasons alternate forever", async () => {
    const pulling = (index: number) => {
      const problem =
        index % 2 === 0
          ? `ErrImagePull: dial tcp 10.0.0.1:${40_000 + index}: i/o timeout`
          : 'ImagePullBackOff: Back-off pulling image "x"';
      return fleet([node("a", undefined, { pod: { name: "p", current: true, ready: false, problem } })]);
    };
    const script = Array.from({ length: 2_000 }, (_, index) => pulling(index));
    const { outcome, lines, seconds } = await follow(script);
    expect(outcome.exitCode).toBe(3);
    expect(outcome.failures).toEqual([
      "Nothing has changed for 600 s.",
      expect.stringMatching(/^a: starting: (ErrImagePull|ImagePullBackOff): /),
    ]);
    expect(seconds).toBeLessThan(610);
    expect(lines.filter((line) => line.startsWith("a: "))).toEqual([
      "a: starting: ErrImagePull: dial tcp 10.0.0.1:40000: i/o timeout",
      'a: starting: ImagePullBackOff: Back-off pulling image "x"',
    ]);
  });

  test("an installer that crashes and starts over makes no progress either", async () => {
    const step = (code: string) =>
      fleet([{ ...node("a", "working"), status: status("working", { code, reason: code }) }]);
    const script = Array.from({ length: 2_000 }, (_, index) => step(["check", "payload", "edit"][index % 3] ?? ""));
    const { outcome, seconds } = await follow(script, { stallMs: 60_000 });
    expect(outcome.exitCode).toBe(3);
    expect(seconds).toBeLessThan(70);
  });

  test("too few nodes fail soon, not only after the stall time", async () => {
    const { outcome, seconds } = await follow([fleet([node("a", "ready")])], { wanted: wanted({ minimumNodes: 2 }) });
    expect(outcome.exitCode).toBe(1);
    expect(outcome.failures).toEqual([
      "1 node matches group metal, but at least 2 must: check the group's node selector.",
    ]);
    expect(seconds).toBeLessThan(60);
  });

  test("an API server that is briefly away is waited for and reported once", async () => {
    const away = new Error("connect ECONNREFUSED 10.0.0.1:443");
    const { lines, outcome } = await follow([fleet([node("a", "working")]), away, away, fleet([node("a", "ready")])]);
    expect(outcome.exitCode).toBe(0);
    expect(lines).toEqual([
      "a: working: it is working",
      "The API server cannot be queried, trying again: connect ECONNREFUSED 10.0.0.1:443",
      "The API server answers again.",
      "a: ready: it is ready",
    ]);
  });

  test("an API server that never answers ends it with another exit code", async () => {
    const { outcome } = await follow([new Error("connect ECONNREFUSED")], { stallMs: 60_000 });
    expect(outcome).toMatchObject({ exitCode: 4, failures: ["connect ECONNREFUSED"] });
  });

  test("a missing DaemonSet is no reason to wait", async () => {
    await expect(follow([new Refusal("no-installer", "There is no DaemonSet")])).rejects.toThrow(
      "There is no DaemonSet",
    );
  });

  test("a node that leaves with its runtimes gets a line and fails the rollout", async () => {
    const { lines, outcome } = await follow([
      fleet([node("a", "ready"), node("b", "ready")], { settled: false }),
      fleet([node("a", "ready"), node("b", "ready", { pod: undefined, selected: false })]),
    ]);
    expect(lines.slice(2)).toEqual([expect.stringMatching(/^b: left: .* is still installed, without an installer/)]);
    expect(outcome).toMatchObject({ exitCode: 1, failures: [expect.stringMatching(/^b: left: .* --nodes b$/)] });
    expect(outcome.nodes.map(({ name }) => name)).toEqual(["a"]);
  });

  test("a node that dies and is deleted is not waited for", async () => {
    const { lines, outcome } = await follow([
      fleet([node("a", "ready"), node("b", "working")]),
      fleet([node("a", "ready"), node("b", "working", { ready: false })]),
      fleet([node("a", "ready")]),
    ]);
    expect(outcome.exitCode).toBe(0);
    expect(lines.slice(2)).toEqual(["b: not-ready: became NotReady since this began", "b: left the group"]);
  });
});

describe("of more than fifty nodes", () => {
  const many = (count: number, state: (index: number) => "waiting" | "working" | "ready" | "failed") =>
    fleet(Array.from({ length: count }, (_, index) => node(`n${index}`, state(index))));

  test("the console has counts, and lines of what somebody should look at", async () => {
    const script = Array.from({ length: 601 }, (_, second) =>
      many(600, (index) => (index === 7 ? "failed" : index < second ? "ready" : "waiting")),
    );
    const { lines, outcome } = await follow(script);
    expect(outcome.failures).toEqual(["n7: failed: it is failed"]);
    expect(lines.length).toBeLessThan(70);
    expect(lines[0]).toBe("n7: failed: it is failed");
    expect(lines[1]).toBe("Group metal: 599 waiting, 1 failed.");
    expect(lines.at(-1)).toBe("Group metal: 599 ready, 1 failed.");
  });

  test("so many that fail do not fill a stack's state, and where they are all named is said", async () => {
    const { lines } = await follow([many(5_000, () => "failed")]);
    expect(lines).toHaveLength(52);
    expect(lines.at(-2)).toBe("More such nodes: npx contrast-runtime status --group metal");
  });

  test("hours of waiting are told in ever fewer lines", async () => {
    const { lines, seconds } = await follow([many(51, () => "working")], { stallMs: 4 * 3_600_000 });
    expect(seconds).toBeGreaterThan(14_000);
    expect(lines.length).toBeLessThan(100);
  });
});

test("what a waiting node says of others is no progress", async () => {
  const waiting = (second: number) =>
    fleet([{ ...node("a", "waiting"), status: status("waiting", { reason: `for node ${second}` }) }]);
  const script = Array.from({ length: 100 }, (_, second) => waiting(second));
  const { outcome, seconds } = await follow(script, { stallMs: 30_000 });
  expect(outcome.exitCode).toBe(3);
  expect(seconds).toBeLessThan(40);
});
