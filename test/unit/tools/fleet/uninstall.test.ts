import { describe, expect, test } from "vitest";
import { handlerLabel } from "../../../../runtime/names.ts";
import { nodeObjections, objections } from "../../../../tools/fleet/uninstall.ts";
import { userAmong } from "../../../../tools/fleet/users.ts";
import { fleet, handler, node } from "./fleet-fixture.ts";

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
    `Node c left the group and still has ${handler}: put it back into the group, or run: npx contrast-runtime uninstall --group metal --nodes c`,
  ]);
});

test("a node that was NotReady ever since it joined has nothing to uninstall", () => {
  const nodes = [node("a", undefined, { ready: false, pod: undefined })];
  expect(objections(fleet(nodes), new Set(), [])).toEqual([]);
});

test("a node that another group serves has nothing of this one in the way", () => {
  const nodes = [node("a", "failed", { ready: false, otherGroup: "others" })];
  expect(objections(fleet(nodes), new Set(), [])).toEqual([]);
});

test("nodes are uninstalled by name only when they left the group, answer, and serve no pod", () => {
  const left = (name: string, rest = {}) => node(name, "ready", { pod: undefined, selected: false, ...rest });
  const nodes = [left("a"), left("b", { ready: false }), node("c", "ready")];
  const users = [{ pod: "shop/cart", node: "a", handler }];
  expect(nodeObjections(fleet(nodes), new Set(["d", "c", "b", "a"]), users)).toEqual([
    `Pod shop/cart on a still uses ${handler}: delete it first.`,
    "Node b is NotReady, so nothing can be uninstalled there: bring it back first.",
    "Node c is in group metal, which would install the runtimes again: take the node out of the group first.",
    "Node d has nothing of group metal installed, or does not exist.",
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

describe("a pod uses the handler that its class gave it", () => {
  const other = handler.replace(/.$/, (digit) => (digit === "0" ? "1" : "0"));
  const selects = (name: string) => ({ [handlerLabel(name)]: "true" });
  const pod = (name: string, spec: object) => ({
    metadata: { namespace: "shop", name },
    spec: { nodeName: "a", containers: [], ...spec },
  });
  const named = (name: string, target: string) => ({ metadata: { name }, handler: target });
  const users = (spec: object, ...classes: ReturnType<typeof named>[]) =>
    userAmong(classes, new Set(["a"]))(pod("cart", spec)).map((user) => user.handler);

  test.each([
    ["by its own name", [handler], { runtimeClassName: handler }, [named(handler, handler)]],
    [
      "by a further name",
      [handler],
      { runtimeClassName: "cc", nodeSelector: selects(handler) },
      [named("cc", handler)],
    ],
    ["by a name that is gone", [handler], { runtimeClassName: "cc", nodeSelector: selects(handler) }, []],
    [
      "by a name that has moved",
      [handler],
      { runtimeClassName: "cc", nodeSelector: selects(handler) },
      [named("cc", other)],
    ],
    [
      "by a name that is resolved at admission by now",
      [handler],
      { runtimeClassName: "cc", nodeSelector: selects(handler) },
      [named("cc", "contrast-unresolved")],
    ],
    ["by no name, with our label", [], { nodeSelector: selects(handler) }, []],
    [
      "by another's class",
      [],
      { runtimeClassName: "kata", nodeSelector: selects(handler) },
      [named("kata", "kata-qemu")],
    ],
    ["on another node", [], { runtimeClassName: handler, nodeName: "b" }, [named(handler, handler)]],
  ])("%s", (_, expected, spec, classes) => {
    expect(users(spec, ...classes)).toEqual(expected);
  });
});
