import { deriveRuntime } from "../../../measure/runtime.ts";
import { type Preview, readPreview } from "../../../review/preview/preview.ts";
import { type Summary, summarize } from "../../../review/summary/summary.ts";
import {
  bareMetalNodesCard,
  type ContrastRuntimeCard,
  contrastRuntimeCard,
  type NodeInstallerCard,
  nodeInstallerCard,
  runtimeClassesCard,
} from "../../../runtime/cards.ts";
import { renderSpec } from "../../../runtime/derive.ts";
import type { Manifest } from "../../../runtime/manifest.ts";
import type { PlatformName, RuntimeSpec } from "../../../runtime/spec.ts";
import { fixtureManifest } from "../runtime/fixtures.ts";

/** A step as the engine prints it; the URN's project and stack are added. */
export interface DocumentStep {
  op: string;
  type: string;
  name: string;
  parent?: string;
  before?: object;
  after?: object;
  paths?: string[];
  /** Keys of the states besides type, parent and inputs. */
  options?: { before?: Record<string, unknown>; after?: Record<string, unknown> };
  /** Made by the program itself, and by none of our components. */
  foreign?: boolean;
}

/** Components above a resource of ours, by its type's beginning; none above what is not listed. */
const parents: [RegExp, { type: string }[]][] = [
  [/^command:remote:/, [contrastRuntimeCard, bareMetalNodesCard]],
  [
    /^kubernetes:(node\.k8s\.io|admissionregistration\.k8s\.io\/v1:Mutating)/,
    [contrastRuntimeCard, runtimeClassesCard],
  ],
  [/^kubernetes:core\/v1:(Namespace|Secret)$/, [contrastRuntimeCard]],
  [/^(command|kubernetes):/, [contrastRuntimeCard, nodeInstallerCard]],
  [/^contrast-runtime:index:(NodeInstaller|BareMetalNodes|RuntimeClasses)$/, [contrastRuntimeCard]],
];

const urnOf = ({ type, name, stack, foreign }: { type: string; name: string; stack: string; foreign?: boolean }) => {
  const above = foreign ? [] : (parents.find(([types]) => types.test(type))?.[1] ?? []);
  return `urn:pulumi:${stack}::contrast-runtime::${[...above, { type }].map((each) => each.type).join("$")}::${name}`;
};

/** What `pulumi preview --json` would print of these steps. */
export function document(steps: DocumentStep[], stack = "production"): string {
  const state = (step: DocumentStep, side: "before" | "after", inputs = step[side]) =>
    inputs && {
      type: step.type,
      inputs,
      ...step.options?.[side],
      ...(step.parent && { parent: urnOf({ type: nodeInstallerCard.type, name: step.parent, stack }) }),
    };
  return JSON.stringify({
    config: {},
    steps: [
      { op: "same", urn: urnOf({ type: "pulumi:pulumi:Stack", name: `contrast-runtime-${stack}`, stack }) },
      ...steps.map((step) => ({
        op: step.op,
        urn: urnOf({ ...step, stack }),
        oldState: state(step, "before"),
        newState: state(step, "after"),
        detailedDiff: Object.fromEntries((step.paths ?? []).map((path) => [path, { kind: "update" }])),
      })),
    ],
  });
}

export const previewOf = (...steps: DocumentStep[]): Preview => readPreview(document(steps));
export const summaryOf = (...steps: DocumentStep[]): Summary => summarize(previewOf(...steps));

/** "known: text" of a section's lines. */
export const linesOf = ({ sections }: Summary, title: string): string[] =>
  sections.find((section) => section.title === title)?.lines.map(({ certainty, text }) => `${certainty}: ${text}`) ??
  [];

export const image = (digit: string): string => `registry.example.com/installer@sha256:${digit.repeat(64)}`;

export interface GroupState {
  group?: string;
  formerly?: string;
  runtimes: RuntimeSpec[];
  nodes?: NodeInstallerCard["nodes"] | undefined;
  image?: string;
  atOnce?: number;
  onDestroy?: string;
  manifestsOnly?: boolean;
  distribution?: "containerd" | "k3s";
  advisories?: Record<string, string[]>;
}

/** The steps of one node group: its review card, its spec, and what launches of its runtimes measure. */
export function groupSteps(before: GroupState | undefined, after: GroupState | undefined): DocumentStep[] {
  const op = before ? (after ? "update" : "delete") : "create";
  const { group = "workers" } = after ?? before ?? {};
  const sides = { ...(before && { before: card(before) }), ...(after && { after: card(after) }) };
  const spec = { type: "kubernetes:core/v1:ConfigMap", parent: group };
  return [
    { op, type: nodeInstallerCard.type, name: group, ...sides },
    // Named by its content.
    ...(before
      ? [{ ...spec, parent: before.group ?? group, op: "delete", name: `${group}-old`, before: configMap(before) }]
      : []),
    ...(after ? [{ ...spec, op: "create", name: `${group}-new`, after: configMap(after) }] : []),
  ];
}

const card = ({
  group = "workers",
  runtimes,
  nodes = "all",
  image: by = image("a"),
  atOnce = 1,
  onDestroy = "uninstall",
  manifestsOnly = false,
  distribution = "containerd",
}: GroupState) =>
  nodeInstallerCard.build({ group, distribution, nodes, runtimes, image: by, atOnce, onDestroy, manifestsOnly });

function configMap(state: GroupState) {
  const { group = "workers", formerly, runtimes, atOnce = 1, distribution = "containerd", advisories } = state;
  const names = { group, ...(formerly !== undefined && { formerly }) };
  const { json } = renderSpec({
    ...names,
    distribution: { name: distribution },
    atOnce,
    verifySandbox: false,
    runtimes,
    advisories,
  });
  return { data: { "spec.json": json } };
}

type RuntimeCard = ContrastRuntimeCard["runtimes"][number];
/** What of a runtime's card a test is about, by handler. */
export type RuntimeCards = Record<string, Partial<RuntimeCard>>;

/** A step of the ContrastRuntime, with what its card says of runtimes; without a card after it, it goes. */
export const runtimeStep = (before: RuntimeCards, after: RuntimeCards | undefined): DocumentStep => ({
  op: after ? "update" : "delete",
  type: contrastRuntimeCard.type,
  name: "runtime",
  before: runtimeCard(before),
  ...(after && { after: runtimeCard(after) }),
});
const runtimeCard = (runtimes: RuntimeCards) =>
  contrastRuntimeCard.build({
    handlers: { workers: Object.keys(runtimes) },
    runtimes: Object.entries(runtimes).map(([handler, state]) => ({ ...unremarkable, handler, ...state })),
  });
const unremarkable = {
  ...{ payload: "p", acknowledged: [], closed: [], settings: [], weakened: [] },
  ...{ launch: {}, measured: {} },
};

interface Host {
  name: string;
  address?: string;
  hostKey?: string;
}

/** A step of hosts, of which some are skipped. */
export const hostStep = (before: Host[], after: Host[], skipped: { before?: string[]; after?: string[] } = {}) => ({
  op: "update",
  type: bareMetalNodesCard.type,
  name: "snp-hosts",
  before: hostCard(before, skipped.before),
  after: hostCard(after, skipped.after),
});
export const hostCard = (hosts: Host[], ignored: string[] = []) =>
  bareMetalNodesCard.build({
    hosts: hosts.map((host) => ({ address: "192.0.2.1", hostKey: "ssh-ed25519 AAAA", ...host })),
    ignored,
    requirements: go.host,
  });

/** The runtime of a platform and a payload: a fixture by its name, or a manifest. */
export const runtime = (manifest: Manifest | string = "contrast-go", platform: PlatformName = "metal-qemu-snp") =>
  deriveRuntime({ platform, manifest: typeof manifest === "string" ? fixtureManifest(manifest) : manifest });
export const go = runtime();
export const next = runtime("contrast-go-next");
const contrastGo = fixtureManifest("contrast-go");
export const otherKernel = runtime({
  ...contrastGo,
  name: "patched",
  files: contrastGo.files.map((file) => (file.role === "kernel" ? { ...file, sha256: "9".repeat(64) } : file)),
  measurement: { ...contrastGo.measurement, kernel: { sha256: "9".repeat(64), efiStub: true } },
});
