import { canonicalJson, sha256 } from "../node-installer/runtime/canonical.ts";
import type { FleetPlan } from "./fleet-plan.ts";
import { card, configMapType, groupChanges, installerType, readSpec, specMap } from "./groups.ts";
import { leafChanges } from "./leaves.ts";
import { code, known, type Line, notKnownYet, predicted, unknown } from "./lines.ts";
import { hosts, localNodes, nodeLines } from "./nodes.ts";
import type { Inputs, Preview, Step } from "./preview.ts";
import { restartLines } from "./restarts.ts";
import { attestationLines, cards, runtimeLines } from "./runtimes.ts";
import { securityLines } from "./security.ts";
import type { Source } from "./source.ts";

/** One resource that the engine will change. */
export interface Operation {
  op: string;
  type: string;
  name: string;
  /** Property paths that differ; empty where the engine compares no further. */
  changed: string[];
  /** SHA-256 of the planned inputs in canonical JSON, secrets as "[secret]"; absent for what goes. */
  inputs?: string;
}

export interface Summary {
  project: string;
  stack: string;
  sections: { title: string; lines: Line[] }[];
  /** Sorted by type and name. */
  operations: Operation[];
  errors: string[];
  /** Not part of the canonical form, either: some are about the machine. */
  warnings: string[];
  /** By group; only where bundles of nodes were given. Not part of the canonical form: nodes change by themselves. */
  fleets: FleetPlan[];
}

/** What a preview comes to, in the words of the domain. Pure. */
export function summarize(preview: Preview, fleets: FleetPlan[] = []): Summary {
  const groups = groupChanges(preview);
  const sections = [
    { title: "Runtimes", lines: runtimeLines(groups, preview) },
    { title: "Attestation", lines: attestationLines(groups, preview) },
    { title: "Nodes", lines: nodeLines(groups, preview) },
    { title: "Restarts of containerd", lines: restartLines(groups, preview) },
    { title: "Security", lines: securityLines(groups, preview) },
    { title: "Changed from outside", lines: preview.drift.flatMap(driftLines) },
    { title: "Left behind by an update that failed", lines: preview.leftBehind.map(leftBehindLine) },
    { title: "Not known here", lines: preview.steps.flatMap((step) => [...otherLines(step), ...unreadLines(step)]) },
  ];
  return {
    project: preview.project,
    stack: preview.stack,
    sections: sections.filter(({ lines }) => lines.length > 0),
    operations: [...preview.steps, ...preview.leftBehind].map(operation).sort(byTypeAndName),
    errors: preview.errors,
    warnings: [...new Set(preview.warnings)].sort(),
    fleets,
  };
}

const operation = ({ op, type, name, paths, after }: Step): Operation => ({
  op,
  type,
  name,
  changed: paths,
  ...(after !== undefined && { inputs: sha256(canonicalJson(after)) }),
});

const byTypeAndName = (a: Operation, b: Operation): number => {
  const [x, y] = [`${a.type} ${a.name} ${a.op}`, `${b.type} ${b.name} ${b.op}`];
  return x < y ? -1 : x > y ? 1 : 0;
};

function driftLines({ type, name, before, after }: Step): Line[] {
  const thing = `${code(type.split(":").at(-1))} ${code(name)}`;
  if (after === undefined) {
    return [known(`${thing} is gone, though the stack did not remove it.`), predicted(`${thing} is made again.`)];
  }
  const paths = leafChanges(before, after).map(({ path }) => code(path));
  return [
    known(`${thing} was changed by somebody else: ${paths.join(", ")}.`),
    predicted(`${thing} is set to what the stack says.`),
  ];
}

const leftBehindLine = ({ type, name }: Step): Line =>
  known(
    `${code(type.split(":").at(-1))} ${code(name)}: an earlier update replaced it and did not delete the old one, which is deleted now.`,
  );

/** Of what this program makes, everything is explained above or says for itself what it is. */
const ours =
  /^(contrast-runtime:index:|kubernetes:(core\/v1:(Namespace|ConfigMap|ServiceAccount|Secret)|apps\/v1:DaemonSet|node\.k8s\.io\/v1:RuntimeClass|rbac\.|admissionregistration\.)|command:|pulumi:providers:|azure-native:containerservice:AgentPool)/;

/** Of these types it says so only of what our components make, and of the push of an image that was built here. */
const anybodys = /^(command:|kubernetes:core\/v1:(ConfigMap|ServiceAccount)$)/;

const otherLines = ({ op, urn, type, name }: Step): Line[] => {
  if (anybodys.test(type) && !urn.includes("::contrast-runtime:index:") && name !== "installer-image") {
    return [unknown(`What the ${op} of ${code(name)} (${code(type)}) does: it is none of this product's.`)];
  }
  return ours.test(type)
    ? []
    : [unknown(`What the ${op} of ${code(name)} (${code(type)}) does: this summary does not know that type.`)];
};

/** What the lines above are made of. */
const read: Record<string, (inputs: Inputs) => boolean> = {
  [installerType]: (inputs) => card.safeParse(inputs).success,
  [configMapType]: (inputs) => !specMap.safeParse(inputs).success || readSpec(inputs) !== undefined,
  "contrast-runtime:index:ContrastRuntime": (inputs) => cards.safeParse(inputs).success,
  "contrast-runtime:index:BareMetalNodes": (inputs) => hosts.safeParse(inputs).success,
  "contrast-runtime:index:LocalCluster": (inputs) => localNodes.safeParse(inputs).success,
  ...Object.fromEntries(
    ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"].map((kind) => [
      `kubernetes:rbac.authorization.k8s.io/v1:${kind}`,
      (inputs: Inputs) => !Object.values(inputs).includes(notKnownYet),
    ]),
  ),
};

/** Of another version, or with values that only the update will know. */
const unreadLines = ({ type, name, before, after }: Step): Line[] =>
  [before, after].every((inputs) => inputs === undefined || (read[type]?.(inputs) ?? true))
    ? []
    : [unknown(`What changes in ${code(name)} (${code(type)}): this summary cannot read what it holds.`)];

/**
 * The form that is approved and compared: the same text for the same plan, whatever the machine, the time, and the order
 * of steps; but for its source, which is where it is from and is not compared.
 */
export function canonical({ project, stack, sections, operations, errors }: Summary, source?: Source): string {
  return `${canonicalJson({ schemaVersion: 1, project, stack, sections, operations, errors, source }, 2)}\n`;
}
