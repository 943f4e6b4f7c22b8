import { deriveRuntime } from "../../../measure/runtime.ts";
import { type Preview, readPreview } from "../../../review/preview.ts";
import { type Summary, summarize } from "../../../review/summary.ts";
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

const component = (name: string) => `contrast-runtime:index:${name}$`;
/** Types above a resource of ours, by its type's beginning; none above what is not listed. */
const chains: [RegExp, string][] = [
  [/^command:remote:/, component("ContrastRuntime") + component("BareMetalNodes")],
  [/^kubernetes:node\.k8s\.io/, component("ContrastRuntime") + component("RuntimeClasses")],
  [/^kubernetes:core\/v1:(Namespace|Secret)$/, component("ContrastRuntime")],
  [/^(command|kubernetes):/, component("ContrastRuntime") + component("NodeInstaller")],
  [/^contrast-runtime:index:(NodeInstaller|BareMetalNodes|RuntimeClasses)$/, component("ContrastRuntime")],
];

const urnOf = ({ type, name, stack, foreign }: { type: string; name: string; stack: string; foreign?: boolean }) => {
  const parents = foreign ? "" : (chains.find(([types]) => types.test(type))?.[1] ?? "");
  return `urn:pulumi:${stack}::contrast-runtime::${parents}${type}::${name}`;
};

/** What `pulumi preview --json` would print of these steps. */
export function document(steps: DocumentStep[], stack = "production"): string {
  const state = (step: DocumentStep, side: "before" | "after", inputs = step[side]) =>
    inputs && {
      type: step.type,
      inputs,
      ...step.options?.[side],
      ...(step.parent && { parent: urnOf({ type: installerType, name: step.parent, stack }) }),
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

const installerType = "contrast-runtime:index:NodeInstaller";
export const image = (digit: string): string => `registry.example.com/installer@sha256:${digit.repeat(64)}`;

export interface GroupState {
  group?: string;
  runtimes: RuntimeSpec[];
  nodes?: unknown;
  image?: string;
  atOnce?: number;
  onDestroy?: string;
  manifestsOnly?: boolean;
  distribution?: "containerd" | "k3s";
}

/** The steps of one node group: its review card, its spec, and what launches of its runtimes measure. */
export function groupSteps(before: GroupState | undefined, after: GroupState | undefined): DocumentStep[] {
  const op = before ? (after ? "update" : "delete") : "create";
  const { group = "workers" } = after ?? before ?? {};
  const sides = { ...(before && { before: card(before) }), ...(after && { after: card(after) }) };
  const spec = { type: "kubernetes:core/v1:ConfigMap", parent: group };
  return [
    { op, type: installerType, name: group, ...sides },
    // Named by its content.
    ...(before ? [{ ...spec, op: "delete", name: `${group}-old`, before: configMap(before) }] : []),
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
  manifestsOnly,
  distribution = "containerd",
}: GroupState) => ({
  group,
  distribution,
  nodes,
  runtimes: runtimes.map(({ handler, platform, payload }) => ({ handler, platform, payload })),
  image: by,
  atOnce,
  onDestroy,
  ...(manifestsOnly && { manifestsOnly }),
});

function configMap({ group = "workers", runtimes, atOnce = 1, distribution = "containerd" }: GroupState) {
  const { json } = renderSpec({ group, distribution: { name: distribution }, atOnce, verifySandbox: false, runtimes });
  return { data: { "spec.json": json } };
}

interface LaunchState {
  launch: Record<string, string>;
  measured?: Record<string, string>;
}

/** What ContrastRuntime's card says of launches, by handler. */
export const launchStep = (before: Record<string, LaunchState>, after: Record<string, LaunchState>): DocumentStep => ({
  op: "update",
  type: "contrast-runtime:index:ContrastRuntime",
  name: "runtime",
  before: launchCard(before),
  after: launchCard(after),
});
const launchCard = (launches: Record<string, LaunchState>) => ({
  runtimes: Object.entries(launches).map(([handler, state]) => ({
    handler,
    payload: "p",
    kata: "contrast-go 3.28.0",
    ...state,
  })),
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
