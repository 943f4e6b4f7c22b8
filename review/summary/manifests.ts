import type { Preview } from "../preview/preview.ts";
import { code } from "../text.ts";
import type { GroupChange } from "./groups.ts";
import { known, type Line, predicted, unknown } from "./line.ts";

/** What whoever applies rendered manifests has to know or to do: no update does it. */
export function manifestLines(changes: GroupChange[], preview: Preview): Line[] {
  const { steps, manifests } = preview;
  if (manifests === undefined) return [];
  return [
    ...manifests.kept.map((name) =>
      known(
        `RuntimeClass ${code(name)} stays, though the stack no longer has it: pods may still say it. When none does, render again with ${code(`--drop-class ${name}`)}.`,
      ),
    ),
    ...manifests.moved.map(({ name, file }) =>
      predicted(
        `Argo CD and Flux make RuntimeClass ${code(name)} anew, as its annotations say. With kubectl, ${code(`kubectl replace --force -f ${file}`)} comes before ${code("apply -k")}, which would be refused: Kubernetes changes no class's handler.`,
      ),
    ),
    ...(steps.some(({ op, type }) => op === "delete" && type.startsWith("kubernetes:"))
      ? [
          predicted(
            `What is removed goes only if whatever applies the manifests prunes: ${code("kubectl apply -k")} alone removes nothing.`,
          ),
        ]
      : []),
    ...(changes.length > 0
      ? [predicted(`Nothing waits for the nodes: ${code("contrast-runtime status")} says when they are done.`)]
      : []),
  ];
}

/** What cannot be said of manifests whose former rendering does not say what it was made of. */
export const unknownBeforeLines = ({ manifests }: Preview): Line[] =>
  manifests?.isBeforeUnknown
    ? [
        unknown(
          "Which runtimes groups get or lose, what verifiers will see, and how often containerd restarts: an earlier version rendered the manifests before, and did not write what that is told by. Render them once more with this version, on the branch that this goes to.",
        ),
      ]
    : [];
