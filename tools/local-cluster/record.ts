import { readFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { containerdVersions } from "../../runtime/containerd-versions.ts";
import { fromJson } from "../../runtime/from-json.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { replaceFile } from "../files/replace.ts";
import type { ClusterLayout } from "./layout.ts";

/** What must be known about a cluster beyond its name; written before anything else of the cluster is made. */
const recordSchema = z.object({
  schemaVersion: z.literal(1),
  /** The installation (a clone, or a package in a program's node_modules) that the cluster belongs to. */
  owner: z.string(),
  nodes: z.array(
    z.object({
      name: z.string(),
      /** Decides its addresses. */
      number: z.int().min(2).max(250),
      containerd: z.enum(containerdVersions),
      labels: z.record(z.string(), z.string()),
    }),
  ),
});
export type ClusterRecord = z.infer<typeof recordSchema>;
export type NodeRecord = ClusterRecord["nodes"][number];

const recordFile = (cluster: ClusterLayout) => join(cluster.directory, "cluster.json");

/** `undefined` if there is no such cluster. */
export async function readRecord(cluster: ClusterLayout): Promise<ClusterRecord | undefined> {
  let text: string;
  try {
    text = await readFile(recordFile(cluster), "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  const parsed = fromJson.pipe(recordSchema).safeParse(text);
  if (parsed.success) return parsed.data;
  throw new Refusal(
    "cluster-record",
    `${recordFile(cluster)} is damaged. Remove the cluster with: ${forcedRemoval(cluster)}`,
  );
}

/** The command works both in a clone and in a program that has the package. */
export const forcedRemoval = ({ name }: ClusterLayout): string =>
  `npx contrast-runtime local-cluster destroy --name ${name} --force`;

export async function writeRecord(cluster: ClusterLayout, record: ClusterRecord): Promise<void> {
  await replaceFile(recordFile(cluster), JSON.stringify(record, undefined, 2));
}
