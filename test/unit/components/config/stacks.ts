import { readFile } from "node:fs/promises";
import { expect } from "vitest";
import { type ConfigurationSource, readConfiguration } from "../../../../components/config/read.ts";
import { Refusal } from "../../../../runtime/refusal.ts";
import { fixtureAdvisories } from "../../runtime/fixtures.ts";

/** Values of the stack's keys, before the engine makes text of them. */
export type Entries = Record<string, unknown>;

export const digest = `sha256:${"a".repeat(64)}`;
const image = `ghcr.io/edgeless/contrast-node-installer@${digest}`;
export const manifest = (name: string): string => `test/fixtures/manifests/fixture-${name}.json`;
export const snp = {
  platform: "metal-qemu-snp",
  payload: manifest("contrast-go"),
  acknowledgedAdvisories: fixtureAdvisories["contrast-go"],
};
export const aksSnp = {
  platform: "aks-clh-snp",
  payload: manifest("contrast-aks"),
  acknowledgedAdvisories: fixtureAdvisories["contrast-aks"],
};
export const host = {
  name: "n1",
  address: "10.0.0.1",
  hostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
};
export const ssh = { privateKey: "k" };
export const kubeconfigCluster = { kind: "kubeconfig", name: "prod" };
export const aksCluster = {
  kind: "aks",
  subscriptionId: "00000000-0000-0000-0000-000000000000",
  resourceGroup: "rg",
  name: "c",
};

export const group = (changes: object = {}): Entries => ({ distribution: "containerd", runtimes: [snp], ...changes });

/** A stack without a mistake, but for what is changed: a value of `undefined` takes the key away. */
export const stack = (changes: Entries = {}): Entries => ({
  cluster: kubeconfigCluster,
  installerImage: image,
  groups: { workers: group() },
  ...changes,
});
/** Its only group is `workers`. */
export const withGroup = (changes: object): Entries => stack({ groups: { workers: group(changes) } });
export const withNodes = (nodes: object): Entries => withGroup({ nodes });
/** … which has one host. */
export const withHost = (changes: object): Entries => withNodes({ hosts: [{ ...host, ...changes }], ssh });
/** … which has one runtime. */
export const withRuntime = (changes: object): Entries => withGroup({ runtimes: [{ ...snp, ...changes }] });
/** Where those stand. */
export const nodes = "groups.workers.nodes";
export const runtime = "groups.workers.runtimes[0]";

/** Several groups, each without a mistake but for what is changed. */
export const withGroups = (groups: Record<string, object>): Entries =>
  stack({ groups: Object.fromEntries(Object.entries(groups).map(([name, changes]) => [name, group(changes)])) });
/** An AKS cluster whose only group is `cc`. */
export const withAksNodes = (nodes: object, cluster: object = {}): Entries =>
  stack({
    cluster: { ...aksCluster, ...cluster },
    groups: { cc: { distribution: "aks", nodes, runtimes: [aksSnp] } },
  });
/** The same, with a pool that may be created. */
export const withPool = (pool: object): Entries =>
  withAksNodes(
    { pool: { name: "cc", vmSize: "Standard_DC4as_cc_v5", count: 2, ...pool } },
    { retiredService: "acknowledged" },
  );
export const localCluster = (nodes?: object[]): Entries =>
  stack({ cluster: { kind: "local", ...(nodes && { nodes }) }, installerImage: undefined });

/** As the engine hands configuration over: structured values are JSON, the rest is text. */
export const source = (entries: Entries, changes: Partial<ConfigurationSource> = {}): ConfigurationSource => ({
  stack: "dev",
  entries: Object.fromEntries(
    Object.entries(entries)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]),
  ),
  secretKeys: ["cluster", "groups", "registry"],
  readText: async (path) => (path === "README.md" ? "# x" : readFile(path, "utf8")),
  imageDigest: async () => digest,
  ...changes,
});

/** What the user reads: a line `key: sentence` for each mistake. */
export async function mistakesIn(entries: Entries, changes?: Partial<ConfigurationSource>): Promise<string[]> {
  try {
    await readConfiguration(source(entries, changes));
    return [];
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    expect(error.code).toBe("configuration");
    return error.message
      .split("\n")
      .slice(1)
      .map((line) => line.trim());
  }
}

/**
 * A mistake: what the stack's one is called, the stack, and by key what the message says. Words that end with a full stop
 * are the whole message; each message stands in full once.
 */
export type Case = [what: string, entries: Entries, says: Record<string, string>];

/** These mistakes, in this order, and no other. */
export async function expectMistakes(
  entries: Entries,
  says: Record<string, string>,
  changes?: Partial<ConfigurationSource>,
): Promise<void> {
  const found = await mistakesIn(entries, changes);
  expect(found).toEqual(
    Object.entries(says).map(([key, words], i) => {
      const line = found[i] ?? "";
      const partly = !words.endsWith(".") && line.startsWith(`${key}: `) && line.includes(words);
      return partly ? line : `${key}: ${words}`;
    }),
  );
}
