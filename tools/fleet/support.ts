import { writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import type { V1DaemonSet } from "@kubernetes/client-node";
import type * as z from "zod";
import { eventComponent, eventNamespace } from "../../node-installer/kubernetes/events.ts";
import { fromJson } from "../../runtime/from-json.ts";
import { groupOfInstaller, partOfLabel, specKey } from "../../runtime/names.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { handlerName } from "../../runtime/spec.ts";
import { type Entry, tar } from "../oci/tar.ts";
import { exitCodes } from "../process/exit-codes.ts";
import { describeError, each, type FleetApi } from "./api.ts";
import { connect } from "./client.ts";
import { nameOf } from "./name-of.ts";
import { isReady, observeFleet, selectorText, specConfigMap } from "./observe.ts";
import { statusJson } from "./status.ts";
import * as parts from "./support-parts.ts";

export interface SupportOptions {
  namespace: string;
  /** The archive's path. */
  output: string;
  version: string;
}

/** Installers whose logs are taken: those that are not Ready come first. */
const mostLogs = 20;
const logLines = 1_000;

/** Writes what a bug report needs into one archive; what could not be had is said in it. Returns the exit code. */
export async function support({ namespace, output, version }: SupportOptions): Promise<number> {
  const api = await connect(process.env);
  const server = await api.get<{ gitVersion?: string }>("/version").catch((error: unknown) => {
    throw new Refusal(
      "unreachable",
      `The API server cannot be queried, so there is nothing to pack: ${describeError(error)}`,
    );
  });
  const problems: string[] = [];
  const part = async <T>(what: string, otherwise: T, read: () => Promise<T>): Promise<T> => {
    try {
      return await read();
    } catch (error) {
      problems.push(`${what}: ${describeError(error)}`);
      return otherwise;
    }
  };
  const listed = <T extends z.ZodType>(what: string, path: string, schema: T, query = {}) =>
    part(what, [], () =>
      api.list(path, query, (item: unknown) => {
        const { data, error } = schema.safeParse(item);
        if (error !== undefined)
          problems.push(`one of the ${what} has another form: ${error.issues[0]?.path.join(".")}`);
        return data === undefined ? [] : [data];
      }),
    );

  const inside = `/api/v1/namespaces/${namespace}`;
  const daemonSets = await part("DaemonSets", [], () =>
    api.list(`/apis/apps/v1/namespaces/${namespace}/daemonsets`, {}, (item: V1DaemonSet) =>
      groupOfInstaller(nameOf(item)) === undefined ? [] : [item],
    ),
  );
  const [nodes, pods, leases, classes, own, ofNodes, groups] = await Promise.all([
    listed("nodes", "/api/v1/nodes", parts.nodePart),
    listed("pods", `${inside}/pods`, parts.podPart, { labelSelector: selectorText(partOfLabel) }),
    listed("tickets", `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`, parts.leasePart),
    listed("RuntimeClasses", "/apis/node.k8s.io/v1/runtimeclasses", parts.classPart),
    listed("Events", `${inside}/events`, parts.eventPart),
    listed("Events of nodes", `/api/v1/namespaces/${eventNamespace}/events`, parts.eventPart, {
      fieldSelector: `source=${eventComponent}`,
    }),
    each(daemonSets, (daemonSet) => groupFiles(api, namespace, daemonSet, part)),
  ]);
  const logs = await logsOf(api, namespace, pods, part);
  const json = (path: string, value: unknown): Entry => ({
    type: "file",
    path,
    mode: 0o644,
    content: `${JSON.stringify(value, null, 2)}\n`,
  });
  const about = {
    version,
    node: process.version,
    kubernetes: server.gitVersion,
    namespace,
    time: new Date().toISOString(),
  };
  const files: Entry[] = [
    json("about.json", about),
    json("nodes.json", nodes),
    json("pods.json", pods),
    json("tickets.json", leases),
    json(
      "runtime-classes.json",
      classes.filter(({ handler }) => handlerName.safeParse(handler).success),
    ),
    json("events.json", [...own, ...ofNodes]),
    ...groups.flat().map(([path, value]) => json(path, value)),
    ...logs.map(([path, content]): Entry => ({ type: "file", path, mode: 0o644, content })),
    json("problems.json", problems),
  ];
  const chunks: Buffer[] = [];
  for await (const chunk of tar(files.map((file) => ({ ...file, path: `contrast-runtime-support/${file.path}` }))))
    chunks.push(chunk);
  // Names of nodes and images are nobody else's business.
  await writeFile(output, await promisify(gzip)(Buffer.concat(chunks)), { mode: 0o600 });
  for (const problem of problems.slice(0, 20)) console.error(`Not in it: ${problem}`);
  console.log(
    `${output}: ${files.length} files. Look through it before you send it: docs/support.md says what it holds.`,
  );
  return exitCodes.done;
}

type Part = <T>(what: string, otherwise: T, read: () => Promise<T>) => Promise<T>;

/** A group's status, DaemonSet and install spec. */
async function groupFiles(api: FleetApi, namespace: string, daemonSet: V1DaemonSet, part: Part) {
  const group = groupOfInstaller(nameOf(daemonSet)) ?? "";
  const files: [path: string, value: unknown][] = [];
  const add = (file: string, read: () => Promise<unknown>) =>
    part(`${file} of group ${group}`, undefined, read).then((value) => {
      if (value !== undefined) files.push([`groups/${group}/${file}.json`, value]);
    });
  await add("daemonset", async () => parts.daemonSetPart.parse(daemonSet));
  await add("status", async () => {
    const text = statusJson([await observeFleet(api, namespace, group)]);
    return JSON.parse(text, (_, value: unknown) => (typeof value === "string" ? parts.scrubbed(value) : value));
  });
  await add("spec", async () => {
    const path = `/api/v1/namespaces/${namespace}/configmaps/${specConfigMap(daemonSet)}`;
    const { data } = await api.get<{ data?: Record<string, string> }>(path);
    return fromJson.pipe(parts.specPart).parse(data?.[specKey] ?? "");
  });
  return files;
}

async function logsOf(api: FleetApi, namespace: string, pods: z.infer<typeof parts.podPart>[], part: Part) {
  const path = `/api/v1/namespaces/${namespace}/pods`;
  const chosen = pods
    .flatMap(({ metadata: { name }, spec: { nodeName: node }, status }) =>
      node === undefined ? [] : [{ name, node, isReady: isReady(status.conditions) }],
    )
    .toSorted((a, b) => Number(a.isReady) - Number(b.isReady))
    .slice(0, mostLogs);
  const logs = await each(chosen, ({ name, node }) =>
    part(`log of ${node}`, undefined, async (): Promise<[string, string] | undefined> => {
      const text = await api.text(`${path}/${name}/log?container=installer&tailLines=${logLines}`);
      return [`logs/${node}.jsonl`, parts.scrubbed(text)];
    }),
  );
  return logs.filter((log) => log !== undefined);
}
