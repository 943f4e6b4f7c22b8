import type { NodeState, PublishedStatus } from "../../../../node-installer/kubernetes/status.ts";
import type { Wanted } from "../../../../tools/fleet/assess.ts";
import type { Fleet, FleetNode } from "../../../../tools/fleet/observe.ts";

export const hash = "a".repeat(64);
export const handler = "contrast-cc-metal-qemu-snp-0a1b2c3d";

export const status = (state: NodeState, rest: Partial<PublishedStatus> = {}): PublishedStatus => ({
  state,
  code: state,
  reason: `it is ${state}`,
  handlers: state === "ready" ? [handler] : [],
  pods: [],
  specHash: hash,
  time: "2026-01-01T00:00:00.000Z",
  ...rest,
});

export const node = (name: string, state: NodeState | undefined, rest: Partial<FleetNode> = {}): FleetNode => ({
  name,
  ready: true,
  containerRuntime: "containerd://2.4.2",
  status: state && status(state),
  labelled: state === "ready" ? [handler] : [],
  otherGroup: undefined,
  selected: true,
  pod: { name: `installer-${name}`, current: true, ready: state === "ready" || state === "blocked", problem: "" },
  ...rest,
});

export const fleet = (nodes: FleetNode[], rest: Partial<Fleet> = {}): Fleet => ({
  namespace: "contrast-runtime-system",
  group: "metal",
  settled: true,
  configMap: "contrast-installer-metal-aaaaaaaa",
  spec: { atOnce: 1, runtimes: [{ handler }] },
  specJson: "{}",
  specHash: hash,
  emptiedSpec: undefined,
  uninstalled: false,
  skipNodes: [],
  nodes,
  tickets: [],
  endedPods: new Set(),
  ...rest,
});

export const wanted = (rest: Partial<Wanted> = {}): Wanted => ({
  specHash: hash,
  minimumNodes: 1,
  skipNodes: new Set(),
  notReadyBefore: new Set(),
  nodesMayLeave: false,
  retries: new Map(),
  ...rest,
});

export const ticket = (holder: string) => ({
  name: "contrast-installer-metal-0",
  uid: "1",
  holder,
  reason: undefined,
});
