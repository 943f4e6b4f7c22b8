import { bareMetalNodesCard, contrastRuntimeCard, localClusterCard, nodeInstallerCard } from "../../runtime/cards.ts";
import { treeDifferences } from "../preview/differences.ts";
import type { Inputs } from "../preview/inputs.ts";
import type { Step } from "../preview/step.ts";
import { code, kindOf, notKnownYet, word } from "../text.ts";
import { differenceBlock } from "./difference-block.ts";
import { components, fieldsOf } from "./fields.ts";
import { configMapType } from "./groups.ts";
import type { Ledger } from "./ledger.ts";
import { claim, known, type Line, predicted, type Told, unknown } from "./line.ts";
import { readSpec, specMapSchema } from "./read-spec.ts";

export function driftLines({ type, name, before, after }: Step): Line[] {
  const thing = `${code(type.split(":").at(-1))} ${code(name)}`;
  if (after === undefined) {
    return [known(`${thing} is gone, though the stack did not remove it.`), predicted(`${thing} is made again.`)];
  }
  const paths = treeDifferences(before, after).map(({ path }) => code(path));
  return [
    known(`${thing} was changed by somebody else: ${paths.join(", ")}.`),
    predicted(`${thing} is set to what the stack says.`),
  ];
}

export const pendingDeletionLine = ({ type, name }: Step): Line =>
  known(
    `${code(type.split(":").at(-1))} ${code(name)}: an earlier update replaced it and did not delete the old one, which is deleted now.`,
  );

/** What is left of types whose fields are known: the differences themselves. */
export function differenceLines(step: Step, ledger: Ledger): Told[] {
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
export function unexplainedLines(step: Step, ledger: Ledger): Told[] {
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

/** What lines are made of, by type: whether this version can read it. */
const isReadable: Record<string, (inputs: Inputs) => boolean> = {
  ...Object.fromEntries(
    [nodeInstallerCard, contrastRuntimeCard, bareMetalNodesCard, localClusterCard].map(({ type, schema }) => [
      type,
      (inputs: Inputs) => schema.safeParse(inputs).success,
    ]),
  ),
  [configMapType]: (inputs) => !specMapSchema.safeParse(inputs).success || readSpec(inputs) !== undefined,
  ...Object.fromEntries(
    ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"].map((kind) => [
      `kubernetes:rbac.authorization.k8s.io/v1:${kind}`,
      (inputs: Inputs) => !Object.values(inputs).includes(notKnownYet),
    ]),
  ),
};

/** Of another version, or with values that only the update will know. */
export const unreadLines = ({ type, name, before, after }: Step): Line[] =>
  [before, after].every((inputs) => inputs === undefined || (isReadable[type]?.(inputs) ?? true))
    ? []
    : [unknown(`What changes in ${code(name)} (${code(type)}): this summary cannot read what it holds.`)];
