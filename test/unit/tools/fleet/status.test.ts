import { expect, test } from "vitest";
import { parseStatus } from "../../../../node-installer/kubernetes/status.ts";
import { describeError } from "../../../../tools/fleet/api.ts";
import { unfinished } from "../../../../tools/fleet/assess.ts";
import { followFleet, outcomeJson } from "../../../../tools/fleet/follow.ts";
import { allReady, statusJson, statusTable } from "../../../../tools/fleet/status.ts";
import { exitCodes } from "../../../../tools/process/exit-codes.ts";
import { fleet, node, status, ticket, wanted } from "./fleet-fixture.ts";

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

test("programs get the same as one line of JSON, and the outcome of a rollout, too", () => {
  const nodes = [node("node-1", "ready"), { ...node("node-2", "failed"), status: status("failed", { reason: "No." }) }];
  const text = statusJson([fleet(nodes, { tickets: [ticket("node-2")] })]);
  expect(text).not.toContain("\n");
  expect(JSON.parse(text)).toMatchObject({
    ready: false,
    nodes: [
      { name: "node-1", group: "metal", state: "ready", containerd: "2.4.2", holdsTicket: false },
      { name: "node-2", state: "failed", holdsTicket: true, handlers: [], reason: "No." },
    ],
  });
  expect(JSON.parse(statusJson([]))).toEqual({ ready: false, nodes: [] });
  expect(
    JSON.parse(outcomeJson("metal", { exitCode: exitCodes.stalled, failures: ["Nothing has changed."], nodes: [] })),
  ).toEqual({ group: "metal", done: false, failures: ["Nothing has changed."], nodes: [] });
});

test("the status is good only if every node is ready now, except for dead ones that are named", () => {
  const dead = node("b", "ready", { ready: false });
  const stale = { ...node("b", "ready"), status: status("ready", { specHash: "b".repeat(64) }) };
  expect(allReady([fleet([node("a", "ready"), node("b", "ready")])])).toBe(true);
  for (const other of [dead, stale, node("b", "failed"), node("b", undefined)])
    expect(allReady([fleet([node("a", "ready"), other])])).toBe(false);
  expect(allReady([fleet([node("a", "ready"), dead], { skipNodes: ["b"] })])).toBe(true);
});

/** What somebody with a node's credentials may write into its annotations: everything. */
const hostile = "\u001b[2K\u001b[1A\u001b]8;;https://evil.example\u0007gate\u001b]8;;\u0007\nnode-2: ready\u202e";
const harmless = "gate node-2: ready";
const annotation = (rest: object) => JSON.stringify({ ...status("failed"), ...rest });
/** As it arrives from the API server: a node with this annotation. */
const read = (text: string) => node("node-1", "blocked", { status: parseStatus(text) });

test("a node's words reach no terminal as anything but words: status, rollout and uninstallation", async () => {
  const nodes = [read(annotation({ reason: hostile, pods: [hostile] }))];
  const said = [statusTable([fleet(nodes)]), ...unfinished(fleet(nodes), wanted())];
  const outcome = await followFleet({
    observe: async () => fleet(nodes),
    wanted: wanted(),
    stallMs: 1_000,
    print: (line) => said.push(line),
    clock: () => 0,
    delay: async () => undefined,
  });
  said.push(...outcome.failures);
  expect(outcome.exitCode).toBe(exitCodes.failed);
  expect(said.filter((line) => line.includes(harmless)).length).toBeGreaterThan(3);
  for (const line of said) expect(line.replaceAll("\n", "")).not.toMatch(/[\p{Cc}\p{Cf}]|evil/u);
  // The table alone has several lines: its header and one for the node.
  expect(said.map((line) => line.split("\n").length)).toEqual([2, ...said.slice(1).map(() => 1)]);
});

test.each([
  ["a megabyte of reason", annotation({ reason: "x".repeat(1 << 20) })],
  ["a state that there is not", annotation({ state: "ready\u001b[2K" })],
  ["a code that is none", annotation({ code: hostile })],
  ["a handler that is none", annotation({ handlers: [hostile] })],
  ["a hash that is none", annotation({ specHash: hostile })],
  ["a time that is none", annotation({ time: hostile })],
  ["handlers without end", annotation({ handlers: Array(5_000).fill("contrast-cc-x-00000000") })],
])("an annotation with %s is no report", (_name, text) => {
  expect(parseStatus(text)).toBeUndefined();
});

test("a list of users says how many it does not show", () => {
  const pods = Array.from({ length: 40 }, (_, index) => `shop/cart-${index}`);
  const blocked = [read(JSON.stringify(status("blocked", { pods })))];
  expect(statusTable([fleet(blocked)])).toContain("shop/cart-9 … and 30 more.");
  expect(unfinished(fleet(blocked), wanted()).join()).toContain("shop/cart-9 … and 30 more.");
});

test.each([
  [new Error(hostile), harmless],
  [hostile, harmless],
])("an API server's words, too: %#", (error, shown) => {
  expect(describeError(error)).toBe(shown);
});
