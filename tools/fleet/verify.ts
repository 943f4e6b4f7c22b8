import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { V1RuntimeClass } from "@kubernetes/client-node";
import { Refusal } from "../../runtime/refusal.ts";
import { exitCodes } from "../process/exit-codes.ts";
import { describeError } from "./api.ts";
import { connect } from "./client.ts";
import { firstOf } from "./console.ts";
import { observeFleet } from "./observe.ts";
import { installedGroups } from "./status.ts";
import { type GroupReport, isGoodGroup, isGoodNode, junit, statements, verifyFleet } from "./verified.ts";

export interface VerifyOptions {
  /** Default: every group that has installers. */
  group?: string | undefined;
  namespace: string;
  /** A directory for the report's files. */
  report?: string | undefined;
}

/** Whether every node serves exactly what its group's spec lists; returns the exit code. */
export async function verify({ group, namespace, report }: VerifyOptions): Promise<number> {
  const api = await connect(process.env);
  const reports = await (async () => {
    const groups = group === undefined ? await installedGroups(api, namespace) : [group];
    const classes = await api.list("/apis/node.k8s.io/v1/runtimeclasses", {}, (item: V1RuntimeClass) => [item]);
    const each: GroupReport[] = [];
    for (const name of groups) each.push(verifyFleet(await observeFleet(api, namespace, name), classes));
    return each;
  })().catch((error: unknown) => {
    if (error instanceof Refusal) throw error;
    throw new Refusal("unreachable", `The fleet cannot be read: ${describeError(error)}`);
  });
  if (reports.length === 0) throw new Refusal("no-installer", `No installers in namespace ${namespace}.`);
  const ok = reports.every(isGoodGroup);
  if (report !== undefined) {
    await mkdir(report, { recursive: true });
    await writeFile(join(report, "report.json"), `${JSON.stringify({ ok, groups: reports }, null, 2)}\n`);
    await writeFile(join(report, "junit.xml"), junit(reports));
    await writeFile(join(report, "statements.jsonl"), statements(reports));
  }
  for (const { group, problems, nodes } of reports) {
    const bad = nodes.filter((node) => !isGoodNode(node));
    const sentences = [...problems, ...bad.map(({ name, problems }) => `${name}: ${problems.join(" ")}`)];
    for (const sentence of firstOf(sentences, group)) console.error(sentence);
    const dead = nodes.filter(({ skipped }) => skipped).length;
    const others = dead > 0 ? ` (${dead} named as dead)` : "";
    console.log(`Group ${group}: ${nodes.length - bad.length} of ${nodes.length} nodes as specified${others}.`);
  }
  return ok ? exitCodes.done : exitCodes.failed;
}
