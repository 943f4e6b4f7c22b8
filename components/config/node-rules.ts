import { handlerLabelPrefix } from "../../runtime/names.ts";
import { at, type GroupPart, type Labels, listed, type Rule } from "./group-part.ts";

/** What must hold of the nodes that a group names, selects, reaches or creates. */
export const nodeRules: Rule<GroupPart>[] = [
  function* oneWay(part) {
    const { used, terms } = part;
    if (used.length > 1)
      yield {
        key: at(part, terms.nodes),
        message: `has ${used.map((way) => terms.words[way]).join(" and ")}. Allowed: one of ${listed(terms, ", ")}.`,
      };
  },

  function* labelsOfHandlers(part) {
    const { nodes, terms } = part;
    for (const [where, labels] of [
      [terms.paths.selector, nodes.selector],
      [`${terms.paths.pool}.labels`, nodes.pool?.labels],
    ] as const) {
      for (const label of labelsBelow(handlerLabelPrefix, labels))
        yield {
          key: at(part, `${where}.${label}`),
          message:
            "is a label that a node's installer sets once the node serves the handler, and pods follow it there. Remove it.",
        };
    }
  },

  function* labelsOfAzure(part) {
    for (const label of labelsBelow("kubernetes.azure.com/", part.nodes.pool?.labels))
      yield {
        key: at(part, `${part.terms.paths.pool}.labels.${label}`),
        message: "is in a prefix that AKS keeps for itself, and Azure refuses it. Remove it.",
      };
  },
];

const labelsBelow = (prefix: string, labels: Labels = {}): string[] =>
  Object.keys(labels).filter((name) => name.startsWith(prefix));
