import { bareMetalNodesCard, isChild, nodeInstallerCard, runtimeClassesCard } from "../../runtime/cards.ts";
import { platforms } from "../../runtime/platforms.ts";
import type { PlatformName } from "../../runtime/spec.ts";
import { type Difference, leafDifferences } from "../preview/differences.ts";
import { type Inputs, items } from "../preview/inputs.ts";
import type { Preview } from "../preview/preview.ts";
import type { Step } from "../preview/step.ts";
import { code, exchange, kindOf, list, word } from "../text.ts";
import { changeLine } from "./difference-block.ts";
import { fieldsOf } from "./fields.ts";
import type { GroupChange } from "./groups.ts";
import { hostKeyLines } from "./hosts.ts";
import type { Ledger } from "./ledger.ts";
import { claim, known, type Told } from "./line.ts";
import { daemonSetType, imagePaths, podLines } from "./pods.ts";
import { clusterLines, providerLines } from "./providers.ts";
import { mutatingPolicyType } from "./resolved-names.ts";
import { bindingLines, ruleLines } from "./rights.ts";

/** What a reviewer who answers for security has to see, whatever else changes. */
export function securityLines(changes: GroupChange[], { steps }: Preview, ledger: Ledger): Told[] {
  const groups = changes.flatMap((change) => groupLines(change, steps));
  // What these tell is not told again.
  ledger.enter(groups);
  return [
    ...groups,
    ...optionLines(steps, ledger),
    ...steps.flatMap((step) => {
      const lines = Object.hasOwn(rows, step.type) ? rows[step.type] : undefined;
      return lines?.(step, ledger) ?? [];
    }),
    // Last, since they are the most.
    ...steps.flatMap((step) => (step.type === bareMetalNodesCard.type ? hostKeyLines(step) : [])),
  ];
}

function groupLines({ group, urn, before, after, added }: GroupChange, steps: Step[]): Told[] {
  const lines = added.flatMap(({ handler, platform }) => {
    const row = platforms[platform as PlatformName];
    if (row?.insecure)
      return [
        known(
          `${code(handler)} is insecure: platform ${code(platform)} has no TEE, nothing in its pods is confidential.`,
        ),
      ];
    if (handler.startsWith("contrast-insecure-"))
      return [known(`${code(handler)} is insecure: the stack sets of its Kata what weakens its guests.`)];
    return row?.experimental
      ? [known(`${code(handler)} is experimental: nobody has run platform ${code(platform)} on its hardware.`)]
      : [];
  });
  if (!after?.image || before?.image === after.image) return lines;
  const text = before?.image ? exchange(before.image, after.image) : code(after.image);
  const line = known(`Group ${code(group)}: the installer, which is root on its nodes, is ${text}.`);
  // The card only says so; of the pods themselves it is told where theirs is the same.
  const pods = steps.filter(({ type, parent }) => type === daemonSetType && parent === urn);
  return [
    ...lines,
    pods.reduce<Told>((told, step) => claim(told, step, imagePaths(step, before?.image, after.image)), line),
  ];
}

/** Whose it is, who makes it, and what keeps it from going: of any resource. Those that say the same have one line. */
function optionLines(steps: Step[], ledger: Ledger): Told[] {
  const names =
    /^options\.(parent|provider|protect|retainOnDelete|deletedWith|external|importID|ignoreChanges)([.[]|$)/;
  const told = steps.flatMap((step) =>
    ledger
      .changes(step)
      .filter(({ path }) => names.test(path))
      .map((leaf) => ({ step, path: leaf.path, sentence: optionSentence(step, leaf) })),
  );
  return [...Map.groupBy(told, ({ sentence }) => sentence)].map(([sentence, same]) => {
    const things = same.map(({ step: { type, name } }) => `${kindOf(type)} ${code(name)}`);
    return same.reduce<Told>(
      (line, { step, path }) => claim(line, step, [path]),
      known(`${list(firstOf([...new Set(things)].sort(), 20))}: ${sentence}.`),
    );
  });
}

function optionSentence({ op }: Step, { path, before, after }: Difference): string {
  const option = code(path.slice("options.".length));
  const short = (value: unknown) =>
    typeof value === "string" ? value.replace(/^urn:pulumi:[^:]*::[^:]*::/, "") : value;
  if (op === "delete") return `only the stack lets go of it; what it made stays as it is (option ${option})`;
  return `option ${option} ${exchange(short(before), short(after))}`;
}

const firstOf = (words: string[], most: number): string[] =>
  words.length > most ? [...words.slice(0, most), `${words.length - most} more`] : words;

/** By type of resource. Everything here is in the diff. */
const rows: Record<string, (step: Step, ledger: Ledger) => Told[]> = {
  [daemonSetType]: podLines,
  "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole": ruleLines,
  "kubernetes:rbac.authorization.k8s.io/v1:Role": ruleLines,
  "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding": bindingLines,
  "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding": bindingLines,
  "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicy": policyLines,
  "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicyBinding": policyLines,
  [mutatingPolicyType]: policyLines,
  [`${mutatingPolicyType}Binding`]: policyLines,
  "kubernetes:core/v1:Namespace": namespaceLines,
  "kubernetes:core/v1:ServiceAccount": accountLines,
  "kubernetes:core/v1:Secret": (step) => [
    claim(known(`Secret ${code(step.name)}: ${word(step.op)}. Its value is not shown.`), step, [
      ...(/^(create|delete|replace)$/.test(step.op) ? [`(${step.op})`] : []),
      "data",
      "stringData",
    ]),
  ],
  "pulumi:providers:kubernetes": clusterLines,
  "pulumi:providers:azure-native": providerLines,
};

/** A policy that refuses nothing is none: what makes it one is said in a sentence, the rest is shown as it is. */
function policyLines(step: Step, ledger: Ledger): Told[] {
  const { op, type, urn, name, after } = step;
  const kind = type.split(":").at(-1);
  const limits = isChild(urn, nodeInstallerCard)
    ? ", which limits what installers may do,"
    : isChild(urn, runtimeClassesCard)
      ? ", which decides which runtime new pods get,"
      : "";
  if (op === "delete") return [claim(known(`${kind} ${code(name)}${limits} is removed.`), step, ["(delete)"])];
  const spec = (after?.spec ?? {}) as Inputs;
  const isWeak = [
    spec.failurePolicy === "Ignore" ? "lets everything through when it fails" : "",
    kind === "ValidatingAdmissionPolicyBinding" && !items(spec.validationActions).includes("Deny")
      ? `refuses nothing: its actions are ${code(spec.validationActions)}`
      : "",
  ].filter((weakness) => weakness !== "");
  const warnings = isWeak.map((weakness) => known(`${kind} ${code(name)} ${weakness}.`));
  if (op === "create") {
    const made = kind?.endsWith("Binding")
      ? []
      : [claim(known(`${kind} ${code(name)}${limits} is new.`), step, ["(create)"])];
    return [...made, ...warnings];
  }
  const told = ledger.rest(step).filter(({ path }) => fieldsOf[type]?.test(path) && !path.startsWith("("));
  return [...warnings, ...told.map((leaf) => claim(changeLine(`${kind} ${code(name)}: `, leaf), step, [leaf.path]))];
}

function namespaceLines(step: Step): Told[] {
  const { op, name, before, after } = step;
  if (op === "delete") {
    return [claim(known(`Namespace ${code(name)} is deleted with everything in it.`), step, ["(delete)"])];
  }
  return leafDifferences(before, after)
    .filter(({ path }) => path.includes("pod-security.kubernetes.io"))
    .map((leaf) => claim(changeLine(`Namespace ${code(name)}: `, leaf), step, [leaf.path]));
}

function accountLines(step: Step): Told[] {
  const { name, before, after } = step;
  if (after === undefined) return [];
  const mounts = (inputs: Inputs | undefined) => inputs !== undefined && inputs.automountServiceAccountToken !== false;
  if (mounts(before) === mounts(after) || (before === undefined && !mounts(after))) return [];
  const text = mounts(after) ? "is mounted into its pods unless they say otherwise" : "is no longer mounted by itself";
  const field = "automountServiceAccountToken";
  const change = before === undefined ? code(after[field]) : exchange(before[field], after[field]);
  return [claim(known(`ServiceAccount ${code(name)}: its token ${text} (${code(field)} ${change}).`), step, [field])];
}
