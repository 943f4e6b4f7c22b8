import { expect, test } from "vitest";
import { allReady, statusTable } from "../../../tools/status.ts";
import { nodeObjections, objections } from "../../../tools/uninstall.ts";
import { fleet, handler, node, status, ticket } from "./fleet-fixture.ts";

test("an uninstallation names every pod and every dead node before it begins", () => {
  const users = [{ pod: "shop/cart", node: "a", handler }];
  const nodes = [
    node("a", "ready"),
    node("b", "ready", { ready: false }),
    node("c", "ready", { pod: undefined, selected: false }),
  ];
  expect(objections(fleet(nodes), new Set(), users)).toEqual([
    `Pod shop/cart on a still uses ${handler}: delete it first.`,
    "Node b is NotReady, so nothing can be uninstalled there: bring it back, or name it as a node to skip.",
    `Node c left the group and still has ${handler}: put it back into the group, or run: contrast-runtime uninstall --group metal --nodes c`,
  ]);
});

test("a node that was NotReady ever since it joined has nothing to uninstall", () => {
  const nodes = [node("a", undefined, { ready: false, pod: undefined })];
  expect(objections(fleet(nodes), new Set(), [])).toEqual([]);
});

test("nodes are uninstalled by name only when they left the group, answer, and serve no pod", () => {
  const left = (name: string, rest = {}) => node(name, "ready", { pod: undefined, selected: false, ...rest });
  const nodes = [left("a"), left("b", { ready: false }), node("c", "ready")];
  const users = [{ pod: "shop/cart", node: "a", handler }];
  expect(nodeObjections(fleet(nodes), new Set(["d", "c", "b", "a"]), users)).toEqual([
    `Pod shop/cart on a still uses ${handler}: delete it first.`,
    "Node b is NotReady, so nothing can be uninstalled there: bring it back first.",
    "Node c is in group metal, which would install again: take it out of the group's nodes first.",
    "Node d has nothing of group metal, or does not exist.",
  ]);
  expect(nodeObjections(fleet(nodes), new Set(["a"]), [])).toEqual([]);
});

test("named nodes are skipped", () => {
  const nodes = [
    node("a", "ready"),
    node("b", "ready", { ready: false }),
    node("c", "ready", { pod: undefined, selected: false }),
  ];
  expect(objections(fleet(nodes), new Set(["b", "c"]), [])).toEqual([]);
});

test("the status table has a row per node, also for those that say nothing", () => {
  const pod = { name: "p", current: true, ready: false, problem: "ImagePullBackOff: not found" };
  const nodes = [
    node("node-1", "ready"),
    { ...node("node-2", "failed"), status: status("failed", { reason: "The gate\nrefused it." }) },
    node("node-3", undefined, { pod }),
    { ...node("node-4", "ready"), status: status("ready", { specHash: "b".repeat(64) }) },
    node("node-5", "ready", { ready: false }),
    node("node-6", "ready", { pod: undefined, selected: false }),
  ];
  expect(statusTable([fleet(nodes, { tickets: [ticket("node-2")] })])).toBe(
    `
NODE    GROUP  STATE       CONTAINERD  TICKET  HANDLERS                             REASON
node-1  metal  ready       2.4.2       -       contrast-cc-metal-qemu-snp-0a1b2c3d  it is ready
node-2  metal  failed      2.4.2       held    -                                    The gate refused it.
node-3  metal  starting    2.4.2       -       -                                    ImagePullBackOff: not found
node-4  metal  outdated    2.4.2       -       contrast-cc-metal-qemu-snp-0a1b2c3d  About an earlier spec: it is ready
node-5  metal  not-ready   2.4.2       -       contrast-cc-metal-qemu-snp-0a1b2c3d  The node is NotReady; what it said last may be old.
node-6  metal  left-group  2.4.2       -       contrast-cc-metal-qemu-snp-0a1b2c3d  No installer of the group runs here any more, and contrast-cc-metal-qemu-snp-0a1b2c3d stays: put it back into the group, or run: contrast-runtime uninstall --group metal --nodes node-6
`.trim(),
  );
});

test("the status is good only when every node is ready now, but for dead ones that are named", () => {
  const dead = node("b", "ready", { ready: false });
  const stale = { ...node("b", "ready"), status: status("ready", { specHash: "b".repeat(64) }) };
  expect(allReady([fleet([node("a", "ready"), node("b", "ready")])])).toBe(true);
  for (const other of [dead, stale, node("b", "failed"), node("b", undefined)])
    expect(allReady([fleet([node("a", "ready"), other])])).toBe(false);
  expect(allReady([fleet([node("a", "ready"), dead], { skipNodes: ["b"] })])).toBe(true);
});
