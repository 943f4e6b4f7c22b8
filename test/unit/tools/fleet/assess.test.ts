import { describe, expect, test } from "vitest";
import { assess, unfinished } from "../../../../tools/fleet/assess.ts";
import { fleet, handler, hash, node, status, ticket, wanted } from "./fleet-fixture.ts";

const stale = node("b", undefined, { status: status("ready", { specHash: "b".repeat(64) }) });

const gone = node("b", "ready", { pod: undefined, selected: false });

describe("whether a rollout is over", () => {
  const ready = node("a", "ready");
  const cases: [string, ReturnType<typeof assess>, { over: boolean; failures: string[] }][] = [
    ["all nodes ready", assess(fleet([ready, node("b", "ready")]), wanted()), { over: true, failures: [] }],
    ["a node still works", assess(fleet([ready, node("b", "working")]), wanted()), { over: false, failures: [] }],
    [
      "a node says it is ready for an earlier spec",
      assess(fleet([ready, stale]), wanted()),
      { over: false, failures: [] },
    ],
    [
      "a node is ready, its pod not yet",
      assess(fleet([node("a", "ready", { pod: { name: "p", current: true, ready: false, problem: "" } })]), wanted()),
      { over: false, failures: [] },
    ],
    [
      "a pod of the former revision reports ready",
      assess(fleet([node("a", "ready", { pod: { name: "p", current: false, ready: true, problem: "" } })]), wanted()),
      { over: false, failures: [] },
    ],
    [
      "the DaemonSet's controller has not caught up",
      assess(fleet([ready], { settled: false }), wanted()),
      { over: false, failures: [] },
    ],
    [
      "the DaemonSet mounts another spec",
      assess(fleet([ready], { specHash: "c".repeat(64) }), wanted()),
      { over: false, failures: [] },
    ],
    [
      "fewer nodes than the minimum",
      assess(fleet([ready]), wanted({ minimumNodes: 2 })),
      { over: false, failures: [] },
    ],
    [
      "a node failed, the other is ready",
      assess(fleet([node("a", "failed"), node("b", "ready")]), wanted()),
      { over: true, failures: ["a: failed: it is failed"] },
    ],
    [
      "a failed node has the only ticket that the others wait for",
      assess(fleet([node("a", "failed"), node("b", "waiting")], { tickets: [ticket("a")] }), wanted()),
      { over: true, failures: ["a: failed: it is failed", "b: waiting: it is waiting Before it: a."] },
    ],
    [
      "a failed node has one of two tickets",
      assess(
        fleet([node("a", "failed"), node("b", "waiting")], {
          tickets: [ticket("a")],
          spec: { atOnce: 2, runtimes: [] },
        }),
        wanted(),
      ),
      { over: false, failures: [] },
    ],
    [
      "a failed node has a ticket left from a larger atOnce",
      assess(
        fleet([node("a", "failed"), node("b", "waiting")], {
          tickets: [{ ...ticket("a"), name: "contrast-installer-metal-1" }],
        }),
        wanted(),
      ),
      { over: false, failures: [] },
    ],
    [
      "a node failed before it took a ticket",
      assess(fleet([node("a", "failed"), node("b", "waiting")], { tickets: [ticket("c")] }), wanted()),
      { over: false, failures: [] },
    ],
    [
      "pods use a handler that is to be removed",
      assess(fleet([{ ...node("a", "blocked"), status: status("blocked", { pods: ["shop/cart"] }) }]), wanted()),
      { over: true, failures: ["a: blocked: it is blocked Pods: shop/cart."] },
    ],
    [
      "those pods have ended since the node looked",
      assess(
        fleet([{ ...node("a", "blocked"), status: status("blocked", { pods: ["shop/cart"] }) }], {
          endedPods: new Set(["shop/cart"]),
        }),
        wanted(),
      ),
      { over: false, failures: [] },
    ],
    [
      "a node was NotReady before and is still",
      assess(fleet([ready, node("b", undefined, { ready: false })]), wanted({ notReadyBefore: new Set(["b"]) })),
      { over: true, failures: [] },
    ],
    [
      "a node became NotReady meanwhile",
      assess(fleet([ready, node("b", "ready", { ready: false })]), wanted()),
      { over: false, failures: [] },
    ],
    [
      "a node was NotReady before, returned and works",
      assess(fleet([ready, node("b", "working")]), wanted({ notReadyBefore: new Set(["b"]) })),
      { over: false, failures: [] },
    ],
    [
      "a dead node is named",
      assess(fleet([ready, node("b", undefined)]), wanted({ skipNodes: new Set(["b"]) })),
      { over: true, failures: [] },
    ],
    [
      "nodes that are not waited for do not make up the minimum",
      assess(fleet([ready, node("b", undefined)]), wanted({ skipNodes: new Set(["b"]), minimumNodes: 2 })),
      { over: false, failures: [] },
    ],
    [
      "an old failure that somebody asked to try again",
      assess(fleet([node("a", "failed")]), wanted({ retries: new Map([["a", "now"]]) })),
      { over: false, failures: [] },
    ],
    [
      "the attempt that was asked for failed too",
      assess(
        fleet([{ ...node("a", "failed"), status: status("failed", { retry: "now" }) }]),
        wanted({ retries: new Map([["a", "now"]]) }),
      ),
      { over: true, failures: ["a: failed: it is failed"] },
    ],
    [
      "a node that left the group with nothing on it does not count",
      assess(fleet([ready, node("b", "failed", { pod: undefined, selected: false })]), wanted()),
      { over: true, failures: [] },
    ],
    [
      "a node that left the group with its runtimes",
      assess(fleet([ready, gone]), wanted()),
      {
        over: true,
        failures: [
          `b: left: ${handler} is still installed, without an installer: put it back into the group, ` +
            "or run: npx contrast-runtime uninstall --group metal --nodes b",
        ],
      },
    ],
    [
      "a node that left the group in the middle of an installation",
      assess(fleet([ready, { ...gone, status: status("working") }], { namespace: "own" }), wanted()),
      {
        over: true,
        failures: [
          "b: left: what its installer had begun is still installed, without an installer: put it back " +
            "into the group, or run: npx contrast-runtime uninstall --namespace own --group metal --nodes b",
        ],
      },
    ],
    [
      "a node that may leave with its runtimes",
      assess(fleet([ready, gone]), wanted({ nodesMayLeave: true })),
      { over: true, failures: [] },
    ],
    [
      "a node that left with its runtimes and is named as one not to wait for",
      assess(fleet([ready, gone]), wanted({ skipNodes: new Set(["b"]) })),
      { over: true, failures: [] },
    ],
  ];
  test.each(cases)("%s", (_, assessment, expected) => {
    expect({ over: assessment.over, failures: assessment.failures }).toEqual(expected);
  });
});

describe("what is reported about a rollout that makes no progress", () => {
  test("pods that do not run, with kubelet's words", () => {
    const pod = { name: "p", current: true, ready: false, problem: "ImagePullBackOff: not found" };
    expect(unfinished(fleet([node("a", undefined, { pod })]), wanted())).toEqual([
      "a: starting: ImagePullBackOff: not found",
    ]);
  });
  test("too few nodes, with the group and both numbers", () => {
    expect(unfinished(fleet([node("a", "ready")]), wanted({ minimumNodes: 3 }))).toEqual([
      "1 node matches group metal, but at least 3 must: check the group's node selector.",
    ]);
  });
  test("too few nodes because they are dead: the selector is not to blame", () => {
    const nodes = [node("a", "ready"), node("b", undefined, { ready: false }), node("c", undefined, { ready: false })];
    const rest = { minimumNodes: 2, notReadyBefore: new Set(["b"]), skipNodes: new Set(["c"]) };
    expect(unfinished(fleet(nodes), wanted(rest))).toEqual([
      "1 of 3 nodes of group metal can become ready, but at least 2 must. NotReady since before this began, or named as nodes not to wait for: b, c.",
    ]);
  });
  test("a spec other than the wanted one", () => {
    expect(unfinished(fleet([node("a", "ready")], { specHash: "c".repeat(64) }), wanted())).toContain(
      `The DaemonSet of group metal mounts the spec ${"c".repeat(12)}, not ${hash.slice(0, 12)}: an unfinished uninstallation emptied it, or ` +
        "somebody else changed it. An update with --refresh restores it.",
    );
  });
});
