import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
// An independent reader: the product itself reads TOML with smol-toml.
import { parse } from "@iarna/toml";
import fc from "fast-check";
import { describe, expect, onTestFinished, test } from "vitest";
import { parseClusterOptions } from "../../../../components/config/local-cluster.ts";
import { containerdVersions } from "../../../../runtime/containerd-versions.ts";
import { Refusal } from "../../../../runtime/refusal.ts";
import { clusterLayout, enterNetwork, nodeLayout } from "../../../../tools/local-cluster/layout.ts";
import { containerdConfiguration, nodeFiles } from "../../../../tools/local-cluster/node-files.ts";
import { readRecord } from "../../../../tools/local-cluster/record.ts";

const cluster = clusterLayout("dev");
const node = nodeLayout(cluster, { name: "node-1", number: 2 });
const facts = { cluster, node, pauseImage: "10.0.0.1:5000/pause@sha256:00", restrictOomScores: false };

describe("options", () => {
  test("one node with the newest containerd by default", () => {
    expect(parseClusterOptions({ name: "dev" })).toEqual({
      name: "dev",
      nodes: [{ name: "node-1", containerd: "2.4", labels: {} }],
    });
  });

  test("all mistakes at once, by key", () => {
    const wrong = { name: "Dev", nodes: [{ name: "a_b" }, { name: "a", containerd: "1.5" }], colour: "blue" };
    expect(() => parseClusterOptions(wrong)).toThrow(
      /name: "Dev" must be lower-case[\s\S]*nodes\[0\]\.name: "a_b" must be[\s\S]*nodes\[1\]\.containerd: "1.5" is not allowed[\s\S]*colour/,
    );
    expect(() => parseClusterOptions({ name: "dev", nodes: [{ name: "a" }, { name: "a" }] })).toThrow(/a name twice/);
    expect(() => parseClusterOptions({ name: "dev", nodes: [] })).toThrow(/at least one node/);
  });
});

test.each(["", "{", "[]", '{"schemaVersion":1}'])(
  "a record that holds %j is damaged: it says what to do",
  async (text) => {
    const directory = await mkdtemp(join(tmpdir(), "cluster-record-"));
    onTestFinished(() => rm(directory, { recursive: true }));
    await writeFile(join(directory, "cluster.json"), text);
    await expect(readRecord({ ...cluster, directory })).rejects.toThrow(
      new Refusal(
        "cluster-record",
        `${directory}/cluster.json is damaged. Remove the cluster with: npx contrast-runtime local-cluster destroy --name dev --force`,
      ),
    );
  },
);

describe("layout", () => {
  test("nodes and pods of one cluster never share an address with each other or the control plane", () => {
    const name = fc.stringMatching(/^[a-z][a-z0-9]{0,28}$/);
    const numbers = fc.uniqueArray(fc.integer({ min: 2, max: 250 }), { minLength: 2 });
    fc.assert(
      fc.property(name, numbers, (clusterName, all) => {
        const of = clusterLayout(clusterName);
        const nodes = all.map((number) => nodeLayout(of, { name: `n${number}`, number }));
        const addresses = [of.address, ...nodes.map(({ address }) => address)];
        expect(new Set(addresses).size).toBe(addresses.length);
        expect(new Set(nodes.map(({ podRange }) => podRange)).size).toBe(nodes.length);
        expect(of.podPrefix).not.toBe(of.nodePrefix);
        for (const prefix of [of.podPrefix, of.nodePrefix]) expect(Number(prefix.split(".")[1])).toBeLessThan(256);
        expect(new Set(nodes.map(({ uuid }) => uuid)).size).toBe(nodes.length);
      }),
    );
  });

  test("the longest names fit the system's limits and stay different", () => {
    const of = clusterLayout("c".repeat(30));
    const [one, other] = ["a", "b"].map(
      (end) => nodeLayout(of, { name: `${"n".repeat(39)}${end}`, number: 2 }).machine,
    );
    expect(one?.length).toBeLessThanOrEqual(64);
    expect(one).not.toBe(other);
  });
});

test("the way into the network drops the machine's proxy settings, says where it leads, and changes nothing else", () => {
  const words = enterNetwork("dev");
  const [program = "", ...rest] = words.slice(words.indexOf("--") + 1);
  const proxies = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
  const env = { PATH: "/usr/bin:/bin", ...Object.fromEntries(proxies.map((name) => [name, "http://proxy:3128"])) };
  const { stdout } = spawnSync(program, [...rest, "printenv"], { env, encoding: "utf8" });
  expect(stdout).toBe("PATH=/usr/bin:/bin\nCONTRAST_RUNTIME_NETWORK=dev\n");
});

describe("a node's containerd configuration", () => {
  test.each(containerdVersions)("%s: parses, pulls from the cluster's registry, keeps a runc", (containerd) => {
    const plugins = parse(containerdConfiguration({ ...facts, containerd })).plugins as Record<string, never>;
    const text = JSON.stringify(plugins);
    expect(text).toContain('"config_path":"/etc/containerd/certs.d"');
    expect(text).toContain('"runc":{"runtime_type":"io.containerd.runc.v2"');
    expect(text).toContain(facts.pauseImage);
    expect(text).not.toContain("restrict_oom_score_adj");
    expect(nodeFiles({ ...facts, containerd })).toHaveProperty([
      `/etc/containerd/certs.d/${cluster.registry}/hosts.toml`,
    ]);
  });

  test("OOM scores are restricted only on a machine that may not lower them", () => {
    for (const containerd of ["1.7", "2.4"]) {
      const restricted = containerdConfiguration({ ...facts, containerd, restrictOomScores: true });
      const { plugins } = parse(restricted) as { plugins: Record<string, Record<string, unknown>> };
      const [owner] = Object.entries(plugins).filter(([, table]) => table.restrict_oom_score_adj === true);
      expect(owner?.[0]).toBe(containerd === "1.7" ? "io.containerd.grpc.v1.cri" : "io.containerd.cri.v1.runtime");
    }
  });
});
