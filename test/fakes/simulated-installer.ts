import type { Api } from "../../node-installer/kubernetes/api.ts";
import { clusterConfinement } from "../../node-installer/kubernetes/confinement.ts";
import { newMetrics } from "../../node-installer/kubernetes/metrics.ts";
import { patientApi } from "../../node-installer/kubernetes/patience.ts";
import { nodeReporter } from "../../node-installer/kubernetes/reporter.ts";
import type { NodeStatus } from "../../node-installer/kubernetes/status.ts";
import { leaseTickets, waitForTicket } from "../../node-installer/kubernetes/tickets.ts";

export interface SimulatedOptions {
  api: Api;
  group: string;
  namespace: string;
  nodeName: string;
  atOnce: number;
  startupTaint?: string | undefined;
  handler: string;
  specHash: string;
  now: () => Date;
  /** Milliseconds. */
  uptime: () => number;
  delay: (ms: number) => Promise<void>;
  random: () => number;
  /** Of what the API server did not answer, or refused. */
  onError?: (error: Error) => void;
}

/**
 * An installer, as far as the API server sees it: the product's own reporter, tickets and confinement, called in the order
 * in which `converge` and the watch loop do, while what happens on a node is a pause.
 */
export function simulatedInstaller({ handler, specHash, onError = () => undefined, ...options }: SimulatedOptions) {
  const { nodeName, delay, random, uptime } = options;
  const client = patientApi(options.api, options);
  const reporter = nodeReporter({ ...options, api: client, metrics: newMetrics(), onError });
  const tickets = leaseTickets(client, options);
  const confinement = clusterConfinement({ ...options, api: client });
  const say = (state: NodeStatus["state"], code: string): NodeStatus => ({
    ...{ state, code, reason: `${code} on ${nodeName}`, handlers: reporter.served(), pods: [], specHash },
  });
  /** As the watch loop: what the API server does not answer is asked again. */
  const looked = async (look: () => Promise<void>) => {
    for (let pauseMs = 15_000; ; pauseMs = Math.min(2 * pauseMs, 120_000)) {
      try {
        return await look();
      } catch (error) {
        onError(error instanceof Error ? error : new Error(String(error)));
        reporter.report(say("waiting", "api-unavailable"));
        await delay(pauseMs * (0.5 + random()));
      }
    }
  };
  const look = async () => {
    await reporter.retryToken();
    await confinement.require();
    await reporter.setServed(reporter.served());
  };
  return {
    prepare: () =>
      looked(async () => {
        await look();
        for (const step of ["check-host", "validate", "place-payload"]) reporter.report(say("working", step));
        await confinement.require(true);
      }),
    async takeTicket() {
      const onWait = () => reporter.report(say("waiting", "take-ticket"));
      await waitForTicket(tickets, { delay, onWait, random });
      for (const step of ["edit", "restart"]) reporter.report(say("working", step));
      await reporter.nodeReady();
    },
    async passGate() {
      reporter.report(say("working", "gate"));
      await reporter.nodeReady();
    },
    async succeed() {
      await looked(() => tickets.release());
      const status = { ...say("ready", "ready"), handlers: [handler] };
      await looked(() => reporter.setServed([handler], { status, lifted: options.startupTaint }));
    },
    /** The looks of a node on which nothing happens. */
    async stay(ms: number) {
      const end = uptime() + ms;
      while (uptime() < end) {
        await delay(60_000);
        await looked(look);
      }
    },
    flush: () => reporter.flush(),
  };
}
