import { code, count, few, quoted } from "../text.ts";
import { type FleetPlan, type NodePlan, type Notice, type Outcome, order } from "./plan.ts";

const words: Record<NodePlan["outcome"], [one: string, many: string]> = {
  refused: ["is refused", "are refused"],
  unknown: ["cannot be planned", "cannot be planned"],
  restart: ["restarts containerd", "restart containerd"],
  change: ["changes without a restart", "change without a restart"],
  unchanged: ["is unchanged", "are unchanged"],
};

/** "212 nodes: 5 are refused, 198 restart containerd, 9 are unchanged." */
export function fleetSentence({ nodes, outcomes, missing }: FleetPlan): string {
  const parts = order.flatMap((outcome) => {
    const number = outcomes.filter((one) => one.outcome === outcome).reduce((sum, one) => sum + one.nodes.length, 0);
    return number === 0 ? [] : [`${number} ${words[outcome][number === 1 ? 0 : 1]}`];
  });
  const others =
    nodes > 0 && missing.length > 0 ? ` There is no bundle of ${missing.length} more: ${few(missing)}.` : "";
  return `${count(nodes, "node")}: ${parts.length > 0 ? parts.join(", ") : "no bundle of any was given"}.${others}`;
}

/** "5 nodes are refused (no-space: …): a, b, c, d, e." */
export function outcomeSentence({ outcome, code: reasonCode, reason, nodes }: Outcome): string {
  // A node's own words are in it, and no Markdown.
  const text = quoted(reason.replace(/\.$/, ""));
  const why = outcome === "refused" ? ` (${code(reasonCode)}: ${text})` : reason === "" ? "" : ` (${text})`;
  return `${count(nodes.length, "node")} ${words[outcome][nodes.length === 1 ? 0 : 1]}${why}: ${few(nodes)}.`;
}

/** "To know of 2 nodes: k0s up to 1.35 … (a, b)." */
export const noticeSentence = ({ sentence, nodes }: Notice): string =>
  `To know of ${count(nodes.length, "node")} (${few(nodes)}): ${quoted(sentence)}`;
