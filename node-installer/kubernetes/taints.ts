import { type Api, isStatus } from "./api.ts";
import { type NodeObject, nodePath, readOwnNode } from "./node.ts";

/** How often somebody else may change the node between a look at it and the patch. */
const maximumTries = 5;

/**
 * Takes every taint with this key from the node and leaves all others, in their order. Nothing is written if there is none.
 *
 * @param node as it was read last
 */
export async function liftTaint(api: Api, node: NodeObject, taint: string): Promise<void> {
  let seen = node;
  for (let tries = 1; ; tries += 1) {
    const taints = seen.spec?.taints ?? [];
    const others = taints.filter(({ key }) => key !== taint);
    if (others.length === taints.length) return;
    const { name, resourceVersion } = seen.metadata;
    try {
      // A patch replaces the whole list: it counts only for the node that was seen, or it would lift somebody else's.
      await api.mergePatch(nodePath(name), { metadata: { resourceVersion }, spec: { taints: others } });
      return;
    } catch (error) {
      if (!isStatus(error, 409) || tries >= maximumTries) throw error;
      seen = await readOwnNode(api, name);
    }
  }
}
