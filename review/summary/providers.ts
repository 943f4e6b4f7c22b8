import type { Inputs } from "../preview/inputs.ts";
import type { Step } from "../preview/step.ts";
import { code, exchange } from "../text.ts";
import { changeLine } from "./difference-block.ts";
import { fieldsOf } from "./fields.ts";
import type { Ledger } from "./ledger.ts";
import { claim, known, type Line, predicted, type Told, unknown } from "./line.ts";

/** A provider that is replaced, with everything in its cluster. */
export const isAnotherCluster = ({ type, before, after }: Step): boolean =>
  type === "pulumi:providers:kubernetes" &&
  before !== undefined &&
  after !== undefined &&
  before.clusterIdentifier !== after.clusterIdentifier;

/** Which account or subscription, and by which version of the plugin. */
export function providerLines(step: Step, ledger: Ledger): Told[] {
  const { type, name, before, after } = step;
  if (!before || !after) return [];
  const provider = `Provider ${code(name)} (${code(type.split(":").at(-1))})`;
  return ledger
    .changes(step)
    .filter(({ path }) => fieldsOf[type]?.test(path) && !path.startsWith("(") && path !== "")
    .map((leaf) => claim(changeLine(`${provider}: `, leaf), step, [leaf.path]));
}

export function clusterLines(step: Step, ledger: Ledger): Told[] {
  const { type, name, before, after, paths } = step;
  if (!before || !after) return [];
  if (isAnotherCluster(step)) {
    const [first, ...others] = anotherCluster(before, after);
    const told = ["(replace)", "clusterIdentifier", "renderYamlToDirectory"];
    return first ? [claim(first, step, told), ...others] : [];
  }
  const leaves = ledger.changes(step).filter(({ path }) => fieldsOf[type]?.test(path));
  // Credentials are secrets, which are the same text on both sides: where no path is named, they are all that can differ.
  const settings = leaves.filter(({ path, isHidden }) => !isHidden && !path.startsWith("("));
  const differs = before.kubeconfig !== after.kubeconfig;
  const isTold = differs || paths.includes("kubeconfig") || (step.op === "update" && settings.length === 0);
  return [
    ...settings.map((leaf) => claim(changeLine(`Provider ${code(name)}: `, leaf), step, [leaf.path])),
    ...(isTold
      ? [
          claim(
            unknown(`Provider ${code(name)} gets different credentials; whether they lead to the same cluster.`),
            step,
            ["kubeconfig", ...(leaves.length === 0 ? [""] : [])],
          ),
        ]
      : []),
  ];
}

function anotherCluster(before: Inputs, after: Inputs): Line[] {
  const { clusterIdentifier: old, renderYamlToDirectory: oldDirectory } = before;
  const { clusterIdentifier: now, renderYamlToDirectory: directory } = after;
  if (directory !== undefined) {
    return [
      known(`Manifests are written to ${code(directory)}, and cluster ${code(old)} is no longer reached.`),
      predicted("What the stack made there is removed from it, before anything applies the manifests."),
    ];
  }
  return [
    known(
      oldDirectory === undefined
        ? `Another cluster: ${exchange(old, now)}.`
        : `Cluster ${code(now)} is reached; until now manifests were written to ${code(oldDirectory)}.`,
    ),
    predicted(
      oldDirectory === undefined
        ? "What the stack made in the old cluster is removed from there and made in the new one; what is installed on the old one's nodes stays there."
        : "Everything is made in it. What something else made there of the manifests is in the way of that.",
    ),
  ];
}
