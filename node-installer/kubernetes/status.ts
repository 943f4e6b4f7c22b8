import * as z from "zod";
import { printable } from "../../runtime/printable.ts";
import { handlerName } from "../../runtime/spec.ts";

/**
 * working: a step runs. waiting: for a ticket, or for an API server that does not answer. blocked: the spec is served,
 * but handlers that it no longer lists are still used by pods. ready: exactly the spec is served. failed: refused, or
 * rolled back; the same content is not retried automatically.
 */
export const nodeStates = ["working", "waiting", "blocked", "ready", "failed"] as const;
export type NodeState = (typeof nodeStates)[number];

/** What an installer says about its node: with a time, the node's status annotation. */
const nodeStatusSchema = z.object({
  state: z.enum(nodeStates),
  /** Kebab-case: a `Refusal`'s code, or the name of the step. */
  code: z.string(),
  /** A sentence for a person. */
  reason: z.string(),
  /** Handlers that passed the gate, sorted. */
  handlers: z.array(z.string()),
  /** `namespace/name` of the pods that a retirement waits for. */
  pods: z.array(z.string()),
  /** SHA-256 (hex) of the bytes of the spec that this is about; see `specHash`. */
  specHash: z.string(),
  /** The retry token that was acted upon last. */
  retry: z.string().optional(),
});
export type NodeStatus = z.infer<typeof nodeStatusSchema>;

const publishedStatusSchema = nodeStatusSchema.extend({ time: z.iso.datetime() });
export type PublishedStatus = z.infer<typeof publishedStatusSchema>;

/** Node annotations share 256 KiB: a long list of pods or a whole log must not fill them. */
const maxReason = 2048;
const maxPods = 50;
/** A namespace and a name. */
const maxPod = 320;
const maxAnnotation = 64 << 10;

/** Reasons and users are partly others' words: programs', processes', the API server's. */
export function boundedStatus(status: NodeStatus): NodeStatus {
  const pods = status.pods.map((pod) => printable(pod, maxPod));
  // The last one may already say how many more there are.
  if (pods.length > maxPods + 1) pods.splice(maxPods, pods.length, `… and ${pods.length - maxPods} more`);
  return { ...status, reason: printable(status.reason, maxReason), pods };
}

export const publishedStatus = (status: NodeStatus, time: Date): PublishedStatus => ({
  ...boundedStatus(status),
  time: time.toISOString(),
});

/** Everything in it is the node's word, and whoever controls a node can write any annotation. */
const foreignStatusSchema = publishedStatusSchema.extend({
  code: z.string().regex(/^[a-z0-9][a-z0-9-]{0,99}$/),
  handlers: z.array(handlerName).max(1_000),
  specHash: z.string().regex(/^([0-9a-f]{64})?$/),
  retry: z.string().max(1_000).optional(),
});

/** The status in a node's annotation, fit to be printed; undefined if there is none or it is not one of ours. */
export function parseStatus(annotation: string | undefined): PublishedStatus | undefined {
  if (annotation === undefined || annotation.length > maxAnnotation) return undefined;
  try {
    const { time, ...status } = foreignStatusSchema.parse(JSON.parse(annotation));
    return { ...boundedStatus(status), time };
  } catch {
    return undefined;
  }
}

/** Whether the node does everything that the spec asks for; pods of a retired handler do not make it less ready. */
export const isReady = (status: NodeStatus): boolean => status.state === "ready" || status.state === "blocked";
