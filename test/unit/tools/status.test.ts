import { expect, test } from "vitest";
import { allReady, statusTable } from "../../../tools/status.ts";
import { fleet, node, status, ticket } from "./fleet-fixture.ts";

test("the status table has a row per node, even for nodes without a report", () => {
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
node-5  metal  not-ready   2.4.2       -       contrast-cc-metal-qemu-snp-0a1b2c3d  The node is NotReady; its last report may be outdated.
node-6  metal  left-group  2.4.2       -       contrast-cc-metal-qemu-snp-0a1b2c3d  The group's installer no longer runs here, and contrast-cc-metal-qemu-snp-0a1b2c3d is still installed: put it back into the group, or run: npx contrast-runtime uninstall --group metal --nodes node-6
`.trim(),
  );
});

test("the status is good only if every node is ready now, except for dead ones that are named", () => {
  const dead = node("b", "ready", { ready: false });
  const stale = { ...node("b", "ready"), status: status("ready", { specHash: "b".repeat(64) }) };
  expect(allReady([fleet([node("a", "ready"), node("b", "ready")])])).toBe(true);
  for (const other of [dead, stale, node("b", "failed"), node("b", undefined)])
    expect(allReady([fleet([node("a", "ready"), other])])).toBe(false);
  expect(allReady([fleet([node("a", "ready"), dead], { skipNodes: ["b"] })])).toBe(true);
});
