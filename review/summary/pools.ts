import type { Inputs } from "../preview/inputs.ts";
import type { Step } from "../preview/step.ts";
import { code, count } from "../text.ts";
import { known, type Line, predicted, unknown } from "./line.ts";

/** The table of what Azure does to the nodes of a pool, by the operation on it. */
export function poolLines(step: Step): Line[] {
  if (step.type !== "azure-native:containerservice:AgentPool") return [];
  const { op, paths } = step;
  const sizeOf = (inputs: Inputs | undefined) => {
    const { agentPoolName, count } = (inputs ?? {}) as { agentPoolName?: string; count?: number };
    return { name: code(agentPoolName ?? step.name), nodes: typeof count === "number" ? count : undefined };
  };
  const [old, now] = [sizeOf(step.before), sizeOf(step.after)];
  const many = (nodes: number | undefined) =>
    nodes === undefined ? "an unknown number of nodes" : count(nodes, "node");
  switch (op) {
    case "create":
      return [
        known(`Pool ${now.name} is created with ${many(now.nodes)}.`),
        predicted("Azure may refuse it: Microsoft retired the service in March 2026."),
      ];
    case "delete":
      return [known(`Pool ${old.name} is deleted with ${many(old.nodes)}.`)];
    case "replace":
      return [
        known(`Pool ${now.name} is replaced because of ${paths.map(code).join(", ")}.`),
        predicted(
          `It is re-imaged: ${many(old.nodes)} and all pods on them go first, then ${many(now.nodes)} come empty. ` +
            "Azure may refuse to make them: Microsoft retired the service in March 2026.",
        ),
      ];
    case "import":
      return [known(`Pool ${now.name} with ${many(now.nodes)} is imported: the stack manages it from then on.`)];
    default: {
      const others = paths.filter((path) => path !== "count").map(code);
      const inPlace =
        others.length > 0 || paths.length === 0
          ? [known(`Pool ${now.name} is changed in place${others.length > 0 ? `: ${others.join(", ")}` : ""}.`)]
          : [];
      if (old.nodes === now.nodes) return inPlace;
      if (old.nodes === undefined || now.nodes === undefined) {
        return [...inPlace, unknown(`How many nodes pool ${now.name} has from then on.`)];
      }
      const [more, number] = [now.nodes > old.nodes, Math.abs(now.nodes - old.nodes)];
      return [
        ...inPlace,
        known(`Pool ${now.name} has ${many(now.nodes)} instead of ${old.nodes}.`),
        predicted(
          more
            ? `${count(number, "new node")}: Azure may refuse, since Microsoft retired the service in March 2026.`
            : `Azure chooses which ${count(number, "node")} to remove, with the pods on it.`,
        ),
      ];
    }
  }
}
