import { isReady, type NodeStatus, nodeStates } from "./status.ts";

/** What the installer counts, as plain numbers that its loop raises; rendered as Prometheus text only on request. */
export interface InstallerMetrics {
  /** Restarts of containerd that we caused. */
  restarts: number;
  rollbacks: number;
  /** Payload bytes copied to the node. */
  bytesCopied: number;
  /** How often the node's files had drifted from the spec and were repaired. */
  repairs: number;
  /** By code. */
  failures: Record<string, number>;
  /** Duration of the last run of each step. */
  stepSeconds: Record<string, number>;
  /** How long the sandbox took to start that proved a handler, by handler. */
  sandboxSeconds: Record<string, number>;
  /** By handler: advisories of its Kata that the spec names. */
  advisories: Readonly<Record<string, readonly string[]>>;
  lastSuccess: Date | undefined;
}

export const newMetrics = (): InstallerMetrics => ({
  restarts: 0,
  rollbacks: 0,
  bytesCopied: 0,
  repairs: 0,
  failures: {},
  stepSeconds: {},
  sandboxSeconds: {},
  advisories: {},
  lastSuccess: undefined,
});

/** Prometheus' text format. The library is loaded here, so that an installer that is not scraped stays small. */
export async function renderMetrics(
  group: string,
  status: NodeStatus | undefined,
  metrics: InstallerMetrics,
): Promise<{ contentType: string; text: string }> {
  const { Counter, Gauge, Registry } = await import("prom-client");
  const registry = new Registry();
  registry.setDefaultLabels({ group });
  const registers = [registry];
  const counter = (name: string, help: string, value: number) =>
    new Counter({ name: `contrast_installer_${name}`, help, registers }).inc(value);
  const gauge = (name: string, help: string, label: string, values: Iterable<[string, number]>) => {
    const metric = new Gauge({ name: `contrast_installer_${name}`, help, labelNames: [label], registers });
    for (const [key, value] of values) metric.set({ [label]: key }, value);
  };

  counter("containerd_restarts_total", "Restarts of containerd by the installer.", metrics.restarts);
  counter("rollbacks_total", "Changes that failed the gate and were rolled back.", metrics.rollbacks);
  counter("repairs_total", "How often drifted files were repaired.", metrics.repairs);
  counter("payload_bytes_copied_total", "Payload bytes copied to the node.", metrics.bytesCopied);
  const failures = new Counter({
    name: "contrast_installer_failures_total",
    help: "Failures by code.",
    labelNames: ["code"],
    registers,
  });
  for (const [code, count] of Object.entries(metrics.failures)) failures.inc({ code }, count);
  gauge("step_seconds", "Duration of the last run of a step.", "step", Object.entries(metrics.stepSeconds));
  gauge(
    "sandbox_seconds",
    "How long the sandbox took to start that proved the handler.",
    "handler",
    Object.entries(metrics.sandboxSeconds),
  );
  gauge(
    "state",
    "1 for the state that the node is in.",
    "state",
    nodeStates.map((state) => [state, status?.state === state ? 1 : 0]),
  );
  gauge(
    "handler_served",
    "1 for each handler that passed the gate.",
    "handler",
    (status?.handlers ?? []).map((handler) => [handler, 1]),
  );
  const advisories = new Gauge({
    name: "contrast_installer_kata_advisory",
    help: "1 for each advisory of a served handler's Kata that the stack acknowledges.",
    labelNames: ["handler", "advisory"],
    registers,
  });
  for (const handler of status?.handlers ?? [])
    for (const advisory of metrics.advisories[handler] ?? []) advisories.set({ handler, advisory }, 1);
  new Gauge({
    name: "contrast_installer_ready",
    help: "1 when everything that the spec lists is served.",
    registers,
  }).set(status !== undefined && isReady(status) ? 1 : 0);
  new Gauge({
    name: "contrast_installer_last_success_timestamp_seconds",
    help: "When the node last became ready; 0 if never since the start.",
    registers,
  }).set((metrics.lastSuccess?.getTime() ?? 0) / 1000);
  return { contentType: registry.contentType, text: await registry.metrics() };
}
