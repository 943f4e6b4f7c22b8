import type { NodeGroupArgs } from "../contrast-runtime.ts";
import type { GroupConfiguration } from "./read.ts";

/** A group as the stack's configuration says it, as the component takes it. */
export function nodeGroup({ name, nodes, runtimes, ...group }: GroupConfiguration): NodeGroupArgs {
  return {
    ...group,
    group: name,
    runtimes: runtimes.map(({ overhead, ...runtime }) => ({ ...runtime, ...overhead })),
    ...(nodes.selector && { nodeSelector: nodes.selector }),
    ...(nodes.names && { nodeNames: nodes.names }),
  };
}
