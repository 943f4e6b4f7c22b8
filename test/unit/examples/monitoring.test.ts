import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { newMetrics, renderMetrics } from "../../../node-installer/kubernetes/metrics.ts";
import { nodeStates } from "../../../node-installer/kubernetes/status.ts";
import { systemNamespace } from "../../../runtime/names.ts";

/* Alerts and dashboard ask for metrics that the installer has, by labels that these have. */

const directory = resolve(import.meta.dirname, "../../../examples/monitoring");
const text = (file: string) => readFileSync(join(directory, file), "utf8");

interface Monitor {
  metadata: { name: string; namespace: string };
  spec: { podMetricsEndpoints: { relabelings: { targetLabel: string }[] }[] };
}
interface Rules {
  spec: { groups: { rules: { alert: string; expr: string; annotations: { summary: string } }[] }[] };
}
interface Dashboard {
  panels: { id: number; title: string; gridPos: Box; targets: { expr: string; legendFormat: string }[] }[];
  templating: { list: { name: string; query: string | { query: string } }[] };
}
interface Box {
  x: number;
  y: number;
  w: number;
  h: number;
}

const monitor = parse(text("pod-monitor.yaml")) as Monitor;
const alerts = (parse(text("alerts.yaml")) as Rules).spec.groups.flatMap(({ rules }) => rules);
const dashboard = JSON.parse(text("dashboard.json")) as Dashboard;

/** Each metric of an installer to which everything has happened, with the labels of its series. */
async function installersMetrics(): Promise<Map<string, Set<string>>> {
  const handler = "contrast-cc-metal-qemu-snp-0a1b2c3d";
  const status = { state: "ready", code: "ready", reason: "", handlers: [handler], pods: [], specHash: "" } as const;
  const metrics = newMetrics();
  metrics.failures["gate-failed"] = 1;
  metrics.stepSeconds.edit = 1;
  metrics.sandboxSeconds[handler] = 1;
  metrics.advisories = { [handler]: ["GHSA-0000-0000-0000"] };
  const { text } = await renderMetrics("workers", { ...status, handlers: [handler], pods: [] }, metrics);
  const found = new Map<string, Set<string>>();
  for (const [, name = "", labels = ""] of text.matchAll(/^([a-z_]+)\{([^}]*)\} /gm))
    found.set(
      name,
      new Set([...(found.get(name) ?? []), ...[...labels.matchAll(/(\w+)="/g)].map(([, key = ""]) => key)]),
    );
  return found;
}

/** What Prometheus adds: of every target, and by the monitor. */
const ofTargets = [
  ...["job", "namespace", "pod", "container", "endpoint", "instance"],
  ...monitor.spec.podMetricsEndpoints.flatMap(({ relabelings }) => relabelings.map(({ targetLabel }) => targetLabel)),
];
const known = await installersMetrics();
known.set("up", new Set());

const keysOf = (metric: string): string[] => [...(known.get(metric) ?? []), ...ofTargets];
const metricsIn = (expr: string) => [...expr.matchAll(/\b(contrast_installer_\w+|up)\b/g)].map(([name]) => name);

/** Label keys that are compared or grouped by, and of `state` also the values. */
function expectKnown(expr: string, shown: string): void {
  const metrics = metricsIn(expr);
  expect(metrics.length, expr).toBeGreaterThan(0);
  for (const metric of metrics) {
    expect([...known.keys()], expr).toContain(metric);
    const compared = [...expr.matchAll(new RegExp(`${metric}\\{([^}]*)\\}`, "g"))].flatMap(([, matchers = ""]) =>
      matchers.split(",").map((matcher) => matcher.split(/=~|!~|!=|=/)[0] ?? ""),
    );
    const grouped = [...expr.matchAll(/by \(([^)]*)\)/g)].flatMap(([, keys = ""]) => keys.split(/, ?/));
    const named = [...shown.matchAll(/\{\{ ?(?:\$labels\.)?(\w+) ?\}\}/g)].map(([, key = ""]) => key);
    for (const key of [...compared, ...grouped, ...named]) expect(keysOf(metric), `${key} in ${expr}`).toContain(key);
  }
  for (const [, state] of expr.matchAll(/\bstate="(\w+)"/g)) expect(nodeStates).toContain(state);
}

describe("alerts", () => {
  test.each(alerts.map((rule) => [rule.alert, rule] as const))("%s", (_name, { expr, annotations }) => {
    expectKnown(expr, annotations.summary);
  });

  test("have names of their own, and watch what the monitor makes", () => {
    expect(new Set(alerts.map(({ alert }) => alert)).size).toBe(alerts.length);
    const jobs = alerts.flatMap(({ expr }) => [...expr.matchAll(/job="([^"]*)"/g)].map(([, job]) => job));
    const { name, namespace } = monitor.metadata;
    expect(jobs).toEqual([`${namespace}/${name}`]);
    expect(namespace).toBe(systemNamespace);
  });
});

describe("the dashboard", () => {
  test.each(dashboard.panels.map((panel) => [panel.title, panel] as const))("%s", (_title, { targets }) => {
    for (const { expr, legendFormat } of targets) expectKnown(expr, legendFormat);
  });

  test("asks by variables that it has", () => {
    const variables = dashboard.templating.list.map(({ name }) => name);
    const used = [...text("dashboard.json").matchAll(/\$\{?(\w+)/g)].map(([, name = ""]) => name);
    expect(new Set(used.filter((name) => !name.startsWith("__")))).toEqual(new Set(variables));
    for (const { query } of dashboard.templating.list)
      for (const [, metric = "", key = ""] of JSON.stringify(query).matchAll(/label_values\((\w+), (\w+)\)/g))
        expect(keysOf(metric)).toContain(key);
  });

  test("shows every metric, in panels that do not cover each other", () => {
    const shown = dashboard.panels.flatMap(({ targets }) => targets.flatMap(({ expr }) => metricsIn(expr)));
    expect(new Set(shown)).toEqual(new Set([...known.keys()].filter((name) => name !== "up")));
    const boxes = dashboard.panels.map(({ gridPos }) => gridPos);
    for (const [i, a] of boxes.entries())
      for (const b of boxes.slice(i + 1))
        expect(a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y).toBe(true);
    expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(boxes.length);
  });
});
