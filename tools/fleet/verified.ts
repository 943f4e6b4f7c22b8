/** Pure: whether a fleet serves what its spec lists, and the forms in which that is handed on. */
import type { V1RuntimeClass } from "@kubernetes/client-node";
import * as z from "zod";
import { sha256 } from "../../runtime/canonical.ts";
import { fromJson } from "../../runtime/from-json.ts";
import { ownKey } from "../../runtime/names.ts";
import { printable } from "../../runtime/printable.ts";
import { runtimeDirectory } from "../../runtime/spec.ts";
import type { Fleet, FleetNode } from "./observe.ts";
import { reasonOf, stateOf } from "./status.ts";

export interface ServedFile {
  /** On the node. */
  path: string;
  sha256: string;
}

export interface GroupReport {
  group: string;
  specHash: string;
  runtimes: { handler: string; platform: string; payload: string; files: ServedFile[]; advisories: string[] }[];
  /** Of the group as a whole. */
  problems: string[];
  nodes: NodeReport[];
}

export interface NodeReport {
  name: string;
  /** Named as dead in the configuration, and NotReady: nothing is expected. */
  skipped: boolean;
  problems: string[];
  /** As the node's installer said after its last gate, at that time. */
  handlers: string[];
  reportedAt: string | undefined;
  containerd: string;
}

/** What is needed here of a spec that another version of the product may have written. */
const contents = fromJson.pipe(
  z.looseObject({
    advisories: z.record(z.string(), z.array(z.string())).default({}),
    runtimes: z.array(
      z.looseObject({
        handler: z.string(),
        platform: z.string(),
        payload: z.string(),
        files: z.array(z.looseObject({ path: z.string(), sha256: z.string() })),
        kataConfig: z.looseObject({ path: z.string(), content: z.string() }),
      }),
    ),
  }),
);

/** @throws z.ZodError if the spec is of a form that this version does not know */
export function verifyFleet(fleet: Fleet, classes: readonly V1RuntimeClass[]): GroupReport {
  const { runtimes, advisories } = contents.parse(fleet.specJson);
  const targets = new Set(classes.map(({ handler }) => handler));
  return {
    group: fleet.group,
    specHash: fleet.specHash,
    runtimes: runtimes.map(({ handler, platform, payload, files, kataConfig }) => ({
      handler,
      platform,
      payload,
      advisories: advisories[handler] ?? [],
      files: [
        ...files.map(({ path, sha256 }) => ({ path: `${runtimeDirectory(handler)}/${path}`, sha256 })),
        { path: `${runtimeDirectory(handler)}/${kataConfig.path}`, sha256: sha256(kataConfig.content) },
      ],
    })),
    problems: [
      ...runtimes.flatMap(({ handler }) => (targets.has(handler) ? [] : [`No RuntimeClass leads to ${handler}.`])),
      ...(fleet.settled ? [] : ["The DaemonSet controller has not created all pods."]),
    ],
    nodes: fleet.nodes.map((node) => ({
      name: node.name,
      skipped: !node.ready && fleet.skipNodes.includes(node.name),
      problems: problemsOf(node, fleet),
      handlers: node.status?.handlers ?? [],
      reportedAt: node.status?.time,
      containerd: node.containerRuntime,
    })),
  };
}

function problemsOf(node: FleetNode, fleet: Fleet): string[] {
  const state = stateOf(node, fleet);
  if (state !== "ready") return [printable(`${state}: ${reasonOf(node, fleet)}`, 4_000)];
  const wanted = fleet.spec.runtimes.map(({ handler }) => handler);
  const served = node.status?.handlers ?? [];
  const { labelled, pod } = node;
  return [
    ...wanted.filter((handler) => !served.includes(handler)).map((handler) => `${handler} is not served.`),
    ...served
      .filter((handler) => !wanted.includes(handler))
      .map((handler) => `${handler} is served, and the spec does not list it.`),
    ...served.filter((handler) => !labelled.includes(handler)).map((handler) => `The label of ${handler} is missing.`),
    ...labelled
      .filter((handler) => !served.includes(handler))
      .map((handler) => `The label of ${handler} is there, and it is not served.`),
    ...(pod?.ready ? [] : [`The installer's pod is not Ready: ${pod?.problem || "kubelet says no more"}.`]),
  ];
}

export const isGoodNode = ({ skipped, problems }: NodeReport): boolean => skipped || problems.length === 0;
export const isGoodGroup = ({ problems, nodes }: GroupReport): boolean =>
  problems.length === 0 && nodes.every(isGoodNode);

/** JUnit's XML, as CI systems read it: a suite for each group, in it a case for the group and one for each node. */
export function junit(reports: readonly GroupReport[]): string {
  const suites = reports.map(({ group, problems, nodes }) => {
    const cases = [
      testcase(group, "the group", problems),
      ...nodes.map((node) => testcase(group, node.name, node.problems, node.skipped)),
    ];
    const failures = nodes.filter((node) => !isGoodNode(node)).length + (problems.length > 0 ? 1 : 0);
    const skipped = nodes.filter((node) => node.skipped).length;
    const counts = `tests="${cases.length}" failures="${failures}" errors="0" skipped="${skipped}"`;
    return `  <testsuite name="${xml(group)}" ${counts}>\n${cases.join("\n")}\n  </testsuite>\n`;
  });
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="contrast-runtime">\n${suites.join("")}</testsuites>\n`;
}

function testcase(group: string, name: string, problems: readonly string[], skipped = false): string {
  const start = `    <testcase classname="${xml(group)}" name="${xml(name)}"`;
  if (skipped) return `${start}><skipped message="named in the configuration as dead"/></testcase>`;
  return problems.length === 0 ? `${start}/>` : `${start}><failure message="${xml(problems.join(" "))}"/></testcase>`;
}

const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const xml = (text: string): string =>
  printable(text, 4_000).replaceAll(/[&<>"]/g, (character) => entities[character] ?? "");

/** Of which the statements are. */
const servedPredicate = `https://${ownKey("served")}/v1`;

/**
 * In-toto statements (v1), one line for each node that serves something: the files of its handlers with their digests, and
 * who said so. They are the cluster's word, unsigned: whoever runs the command may sign them.
 */
export const statements = (reports: readonly GroupReport[]): string =>
  reports
    .flatMap(({ group, specHash, runtimes, nodes }) =>
      nodes.flatMap(({ name, handlers, reportedAt, containerd }) => {
        const served = runtimes.filter(({ handler }) => handlers.includes(handler));
        if (served.length === 0) return [];
        const statement = {
          _type: "https://in-toto.io/Statement/v1",
          subject: served.flatMap(({ files }) => files.map(({ path, sha256 }) => ({ name: path, digest: { sha256 } }))),
          predicateType: servedPredicate,
          predicate: {
            node: name,
            group,
            installSpec: { sha256: specHash },
            runtimes: served.map(({ handler, platform, payload }) => ({ handler, platform, payload })),
            containerd,
            reportedAt,
          },
        };
        return [`${JSON.stringify(statement)}\n`];
      }),
    )
    .join("");
