import { isDeepStrictEqual } from "node:util";
import { retryAnnotation, stateLabel, statusAnnotation } from "../../runtime/names.ts";
import { type Api, ApiError } from "./api.ts";
import { type NodeEvent, recordEvent } from "./events.ts";
import { labelChanges } from "./labels.ts";
import type { InstallerMetrics } from "./metrics.ts";
import { type NodeObject, type NodeReadiness, patchOwnNode, readinessOf, readOwnNode } from "./node.ts";
import { grown, jittered, retryAfterOf } from "./patience.ts";
import { podsOfHandler } from "./pods.ts";
import { boundedStatus, type NodeStatus, parseStatus, publishedStatus } from "./status.ts";
import { liftTaint } from "./taints.ts";

/** How the installer tells the cluster about its node. */
export interface Reporter {
  /**
   * Makes the node's handler labels exactly these. Resolves once the API server has confirmed it, because a label
   * must be removed before anything that may stop serving its handler. What it confirmed is not asked again for half an
   * hour. Throws `ApiError`.
   *
   * @param also what goes with it
   */
  setServed(handlers: readonly string[], also?: ServedWith): Promise<void>;
  /** The handlers in the node's labels, as far as this process has set them. */
  served(): string[];
  /**
   * Reports the node's state: at once for /readyz and metrics, in the background for the node's annotation and label and,
   * where a person should know, as an Event. Never throws; retries until the API server accepts it; of several, the newest
   * counts. Of the steps of an installation only the first is written to the node: begun, waiting and done make three
   * writes, each of which goes to everybody who watches nodes.
   */
  report(status: NodeStatus): void;
  /** Something that happened apart from the state, such as drift that was repaired. In the background, like `report`. */
  event(event: NodeEvent): void;
  /**
   * A token that changes when somebody asks for another attempt after a failure; undefined if nobody ever did. It is
   * looked up soon after a failure and then ever more rarely, down to every five minutes; otherwise every half hour.
   */
  retryToken(): Promise<string | undefined>;
  /**
   * `namespace/name` of the pods that are bound to this node with the handler's class and have not ended. They may have no
   * sandbox yet: some wait for a volume. Throws `ApiError`.
   */
  podsUsing(handler: string): Promise<string[]>;
  /** Whether Kubernetes calls the node ready; undefined if that cannot be told now. Never throws. */
  nodeReady(): Promise<NodeReadiness | undefined>;
  /** What was reported last. */
  current(): NodeStatus | undefined;
  /** Resolves when everything reported so far is published. */
  flush(): Promise<void>;
  /** Drops what is not published yet. */
  close(): void;
}

export interface ServedWith {
  /** Key of the taint that the node is rid of after that: it waits for nothing any more. */
  lifted?: string | undefined;
  /** Reported with the labels, in one write. */
  status?: NodeStatus | undefined;
}

export interface ReporterOptions {
  api: Api;
  group: string;
  nodeName: string;
  metrics: InstallerMetrics;
  now: () => Date;
  /** Milliseconds of a monotonic clock. */
  uptime: () => number;
  delay: (ms: number) => Promise<void>;
  /** From 0 to below 1. Default: `Math.random`. */
  random?: () => number;
  /** Called for every failed attempt to publish, for the log. */
  onError: (error: ApiError) => void;
}

/** How often a node is read, or labelled anew, that nobody has any business with: jittered around this. */
const calmMs = 30 * 60_000;
/** Where a startup taint is to be lifted: a node that registers anew has it again, and takes no pods until it is gone. */
const taintedMs = 60_000;
/** After a failure a person may ask for another attempt, at first soon. */
const failedMs = [15_000, 300_000] as const;
/** Between attempts to publish. */
const publishMs = [2_000, 60_000] as const;
/** How old a node may be from which it is told which labels have to change. */
const recentMs = 10_000;

export function nodeReporter(options: ReporterOptions): Reporter {
  const { api, nodeName, group, now, uptime, random = Math.random } = options;
  let status: NodeStatus | undefined;
  /** What the node's annotation says. */
  let published: NodeStatus | undefined;
  let unpublished: NodeStatus | undefined;
  const events: NodeEvent[] = [];
  let publishing: Promise<void> | undefined;
  let closed = false;

  let served: readonly string[] = [];
  /** The labels are `served`, and the taint is gone, as far as the API server said. */
  let confirmed = false;
  let lifted: string | undefined;

  /** The node, as the API server showed it last. */
  let seen: { node: NodeObject; at: number; readAgainAt: number } | undefined;
  let reading: Promise<NodeObject> | undefined;
  let looksSinceFailure = 0;

  const remember = (node: NodeObject): NodeObject => {
    // What an earlier process of this node wrote is not written once more.
    published ??= earlierStatus(node.metadata.annotations?.[statusAnnotation(group)]);
    const hasFailed = status?.state === "failed";
    looksSinceFailure = hasFailed ? looksSinceFailure + 1 : 0;
    const pause = hasFailed ? grown(looksSinceFailure, ...failedMs) : calmMs;
    seen = { node, at: uptime(), readAgainAt: uptime() + jittered(pause, random) };
    return node;
  };
  const read = (): Promise<NodeObject> => {
    reading ??= readOwnNode(api, nodeName)
      .then(remember)
      .finally(() => {
        reading = undefined;
      });
    return reading;
  };
  const isDue = (): boolean => {
    if (seen === undefined) return true;
    const tainted = lifted === undefined ? Number.POSITIVE_INFINITY : seen.at + taintedMs;
    return uptime() >= Math.min(seen.readAgainAt, tainted);
  };
  const recent = (): Promise<NodeObject> =>
    seen !== undefined && uptime() - seen.at < recentMs ? Promise.resolve(seen.node) : read();

  /** One after the other: an older state that is still on its way must not arrive after a newer one. */
  let writing: Promise<unknown> = Promise.resolve();
  const write = (next: NodeStatus | undefined, labels: Record<string, string | null>): Promise<NodeObject> => {
    const turn = writing.then(async () => {
      if (next === undefined) return remember(await patchOwnNode(api, nodeName, { labels }));
      const annotations = { [statusAnnotation(group)]: JSON.stringify(publishedStatus(next, now())) };
      const states = { [stateLabel(group)]: next.state };
      const node = await patchOwnNode(api, nodeName, { labels: { ...labels, ...states }, annotations });
      published = next;
      return remember(node);
    });
    writing = turn.catch(() => undefined);
    return turn;
  };

  const publishOnce = async (): Promise<void> => {
    const next = unpublished;
    if (next !== undefined) {
      if (!isDeepStrictEqual(next, published)) await write(next, {});
      if (unpublished === next) unpublished = undefined;
    }
    for (let event = events[0]; event !== undefined; event = events[0]) {
      await recordEvent(api, (seen?.node ?? (await read())).metadata, event, now());
      events.shift();
    }
  };

  const publish = async (): Promise<void> => {
    for (let failures = 0; !closed && (unpublished !== undefined || events.length > 0); ) {
      try {
        await publishOnce();
        failures = 0;
      } catch (error) {
        options.onError(
          error instanceof ApiError ? error : new ApiError(0, "Internal", String(error), { cause: error }),
        );
        // An Event that the API refuses, rather than cannot take now, would hold up everything behind it forever.
        if (unpublished === undefined && isRefusal(error)) events.shift();
        failures += 1;
        await options.delay(Math.max(jittered(grown(failures, ...publishMs), random), retryAfterOf(error)));
      }
    }
    publishing = undefined;
  };
  const wake = () => {
    if (unpublished !== undefined || events.length > 0) publishing ??= publish();
  };

  /** Takes note of a state: for /readyz, metrics and Events. Returns whether it is news. */
  const note = (next: NodeStatus): boolean => {
    if (isDeepStrictEqual(next, status)) return false;
    countOutcome(options.metrics, next, now());
    const event = eventOf(next);
    const said = status ?? published;
    const isRepeated =
      isDeepStrictEqual(event, status && eventOf(status)) ||
      // That all is well is said once, however often the pod is restarted.
      (event?.type === "Normal" && isDeepStrictEqual(next, said));
    if (event !== undefined && !isRepeated) queue(events, event);
    if (seen !== undefined && next.state === "failed" && status?.state !== "failed") {
      seen.readAgainAt = Math.min(seen.readAgainAt, uptime() + jittered(failedMs[0], random));
    }
    status = next;
    return true;
  };

  return {
    async setServed(handlers, { lifted: taint, status: given } = {}) {
      lifted = taint;
      const isSeen =
        seen !== undefined &&
        Object.keys(labelChanges(seen.node, handlers)).length === 0 &&
        !seen.node.spec?.taints?.some(({ key }) => key === taint);
      const isKnown = confirmed && !isDue() && isSeen && isDeepStrictEqual(served, handlers);
      if (isKnown && given === undefined) return;
      const next = given && boundedStatus(given);
      if (next !== undefined) unpublished = undefined;
      // An attempt whose answer is lost may have changed them.
      confirmed = false;
      let node = await recent();
      const labels = labelChanges(node, handlers);
      const isNews = next !== undefined && !isDeepStrictEqual(next, published);
      if (isNews || Object.keys(labels).length > 0) node = await write(isNews ? next : undefined, labels);
      [served, confirmed] = [[...handlers], true];
      if (taint !== undefined) await liftTaint(api, node, taint);
      if (next !== undefined && note(next)) wake();
    },
    served: () => [...served],
    report(given) {
      const next = boundedStatus(given);
      const before = unpublished ?? published;
      if (!note(next)) return;
      if (next.state !== "working") unpublished = next;
      else if (!isUnderWay(before, next)) unpublished = begun(next);
      wake();
    },
    event(event) {
      queue(events, event);
      wake();
    },
    async retryToken() {
      const { metadata } = seen === undefined || isDue() ? await read() : seen.node;
      return metadata.annotations?.[retryAnnotation(group)];
    },
    podsUsing: (handler) => podsOfHandler(api, nodeName, handler),
    nodeReady: () => read().then(readinessOf, () => undefined),
    current: () => status,
    async flush() {
      while (publishing !== undefined) await publishing;
    },
    close() {
      closed = true;
    },
  };
}

function earlierStatus(annotation: string | undefined): NodeStatus | undefined {
  const parsed = parseStatus(annotation);
  if (parsed === undefined) return undefined;
  const { time: _time, ...status } = parsed;
  return status;
}

/** The node already says that this spec is being worked on. */
const isUnderWay = (said: NodeStatus | undefined, { specHash }: NodeStatus): boolean =>
  said !== undefined && said.specHash === specHash && (said.state === "working" || said.state === "waiting");

const begun = (status: NodeStatus): NodeStatus => ({
  ...status,
  code: "begun",
  reason: "The installer is at work on this spec. Its pod's log, /readyz and /metrics name the step.",
});

/** The API server looked at it and says no; timeouts and "too many requests" are no answer. */
const isRefusal = (error: unknown): boolean =>
  error instanceof ApiError &&
  error.status >= 400 &&
  error.status < 500 &&
  error.status !== 408 &&
  error.status !== 429;

/** Reports a state in which the node goes on serving the handlers in its labels. */
export function reportServing(reporter: Reporter, status: Omit<NodeStatus, "handlers" | "pods">): void {
  reporter.report({ ...status, handlers: reporter.served(), pods: [] });
}

/** Bounds memory while the API server is away for long: the oldest Events are the least interesting. */
function queue(events: NodeEvent[], event: NodeEvent): void {
  events.push(event);
  if (events.length > 50) events.shift();
}

function countOutcome(metrics: InstallerMetrics, status: NodeStatus, time: Date): void {
  if (status.state === "failed") metrics.failures[status.code] = (metrics.failures[status.code] ?? 0) + 1;
  if (status.state === "ready") metrics.lastSuccess = time;
}

/** Which states are worth an Event. Steps and turns are not: there would be too many, and the annotation has them. */
function eventOf({ state, code, reason }: NodeStatus): NodeEvent | undefined {
  if (state === "failed") return { type: "Warning", reason: pascalCase(code), message: reason };
  if (state === "blocked") return { type: "Warning", reason: "RuntimeInUse", message: reason };
  if (state === "ready") return { type: "Normal", reason: "RuntimeReady", message: reason };
  return undefined;
}

export const pascalCase = (code: string): string =>
  code.replace(/(?:^|-)([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

/** For runs outside a cluster: remembers the state and tells nobody. */
export function localReporter(metrics: InstallerMetrics, now: () => Date): Reporter {
  let status: NodeStatus | undefined;
  let served: readonly string[] = [];
  const report = (given: NodeStatus): void => {
    const next = boundedStatus(given);
    if (!isDeepStrictEqual(next, status)) countOutcome(metrics, next, now());
    status = next;
  };
  return {
    async setServed(handlers, { status: given } = {}) {
      served = handlers;
      if (given !== undefined) report(given);
    },
    served: () => [...served],
    report,
    event: () => {},
    retryToken: async () => undefined,
    podsUsing: async () => [],
    nodeReady: async () => undefined,
    current: () => status,
    flush: async () => {},
    close: () => {},
  };
}
