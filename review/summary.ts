import { canonicalJson, sha256 } from "../runtime/canonical.ts";
import { differenceBlock } from "./blocks.ts";
import { commandLines } from "./commands.ts";
import { components, fieldsOf } from "./fields.ts";
import type { FleetPlan } from "./fleet-plan.ts";
import { card, configMapType, groupChanges, installerType, readSpec, specMap } from "./groups.ts";
import { leafChanges } from "./leaves.ts";
import { Ledger } from "./ledger.ts";
import { claim, code, kindOf, known, type Line, notKnownYet, predicted, type Told, unknown, word } from "./lines.ts";
import { hosts, localNodes, nodeLines } from "./nodes.ts";
import type { Inputs, Preview, Step } from "./preview.ts";
import { restartLines } from "./restarts.ts";
import { attestationLines, cards, runtimeLines } from "./runtimes.ts";
import { securityLines } from "./security.ts";
import type { Source } from "./source.ts";
import { specLines } from "./specs.ts";

/** One resource that the engine will change. */
export interface Operation {
  op: string;
  type: string;
  name: string;
  /** Its own URN: the types of all that it is below. */
  urn: string;
  /** URN of its parent. */
  parent?: string;
  /** URN of its provider, and SHA-256 of the provider's inputs like that of its own, where the preview shows them. */
  provider?: string;
  providerInputs?: string;
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
  const ledger = new Ledger(preview);
  const section = (title: string, lines: Told[]) => ({ title, lines: ledger.enter(lines) });
  const { steps } = preview;
  // In this order, since each tells what those before have left.
  const specs = section("Install specs", specLines(groups, preview, ledger));
  const domain = [
    section("Runtimes", runtimeLines(groups, preview)),
    section("Attestation", attestationLines(groups, preview)),
    section("Nodes", nodeLines(groups, preview)),
    section("Restarts of containerd", restartLines(groups, preview)),
    section("Security", securityLines(groups, preview, ledger)),
    section("Commands", commandLines(preview, ledger)),
  ];
  const details = [
    section("Changed from outside", preview.drift.flatMap(driftLines)),
    section("Left behind by an update that failed", preview.leftBehind.map(leftBehindLine)),
    specs,
    section(
      "Resource by resource",
      steps.flatMap((step) => differenceLines(step, ledger)),
    ),
  ];
  const left = section(
    "Not explained here",
    steps.flatMap((step) => [...unexplainedLines(step, ledger), ...unreadLines(step)]),
  );
  const sections = [...domain, left, ...details];
  return {
    project: preview.project,
    stack: preview.stack,
    sections: sections.filter(({ lines }) => lines.length > 0),
    operations: [...steps, ...preview.leftBehind].map((step) => operation(step, preview)).sort(byTypeAndName),
    errors: preview.errors,
    warnings: [...new Set(preview.warnings)].sort(),
    fleets,
  };
}

function operation({ op, urn, type, name, parent, provider, paths, after }: Step, { known }: Preview): Operation {
  const providerInputs = provider === undefined ? undefined : known.get(provider);
  return {
    op,
    type,
    name,
    urn,
    ...(parent !== undefined && { parent }),
    ...(provider !== undefined && { provider }),
    ...(providerInputs !== undefined && { providerInputs: sha256(canonicalJson(providerInputs)) }),
    changed: paths,
    ...(after !== undefined && { inputs: sha256(canonicalJson(after)) }),
  };
}

const byTypeAndName = (a: Operation, b: Operation): number => {
  const key = ({ type, name, op, urn, parent, provider }: Operation) =>
    [type, name, op, urn, parent, provider].join(" ");
  const [x, y] = [key(a), key(b)];
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

/** What is left of types whose fields are known: the differences themselves. */
function differenceLines(step: Step, ledger: Ledger): Told[] {
  const isComponent = components.has(step.type);
  const fields = isComponent ? /(?:)/ : Object.hasOwn(fieldsOf, step.type) ? fieldsOf[step.type] : undefined;
  const own = ledger.rest(step).filter(({ path }) => path !== "" && fields?.test(path));
  if (own.length === 0) return [];
  const shown = own.filter((leaf) => !leaf.path.startsWith("(") && !(isComponent && ledger.shows(leaf)));
  const text = `${kindOf(step.type)} ${code(step.name)}${isComponent ? ", a component," : ""} ${verbs[step.op] ?? word(step.op)}`;
  return [
    claim(
      known(`${text}${shown.length > 0 ? ":" : "."}`, differenceBlock(shown)),
      step,
      own.map(({ path }) => path),
    ),
  ];
}

const verbs: Record<string, string> = {
  create: "is new",
  update: "changes",
  delete: "is removed",
  replace: "is deleted and made again",
  import: "is imported",
  same: "stays as it is, but not for the engine",
};

/** Whatever is left: nobody thought of it. */
function unexplainedLines(step: Step, ledger: Ledger): Told[] {
  const rest = ledger.rest(step);
  if (rest.length === 0) return [];
  const { op, type, name } = step;
  const shown = rest.filter(({ path }) => !path.startsWith("("));
  const isNothing = ledger
    .changes(step)
    .every(({ path, isHidden }) => path.startsWith("(") || (path === "" && isHidden));
  const which = isNothing && op !== "delete" ? " The engine shows nothing of what differs." : "";
  return [
    unknown(
      `What the ${word(op)} of ${code(name)} (${code(type)}) does is not explained here.${which}`,
      differenceBlock(shown.filter(({ path }) => path !== "")),
    ),
  ];
}

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
  return `${canonicalJson({ schemaVersion: 2, project, stack, sections, operations, errors, source }, 2)}\n`;
}
