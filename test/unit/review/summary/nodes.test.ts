import { describe, expect, test } from "vitest";
import { aksCocoNodePoolCard } from "../../../../runtime/cards.ts";
import { commandName, skipNodesAnnotation } from "../../../../runtime/names.ts";
import {
  type DocumentStep,
  type GroupState,
  go,
  groupSteps,
  hostStep,
  image,
  linesOf,
  next,
  summaryOf,
} from "../documents.ts";

describe("nodes", () => {
  test("names that join and leave", () => {
    const steps = groupSteps({ runtimes: [go], nodes: ["n1", "n2"] }, { runtimes: [go], nodes: ["n2", "n3"] });
    expect(linesOf(summaryOf(...steps), "Nodes")).toEqual([
      "known: Node `n3` joins group `workers`.",
      "known: Node `n1` leaves group `workers`.",
      "predicted: Nodes that leave `workers` keep what is installed on them, without an installer that looks after it. " +
        "The update fails with their names until they are back, or uninstalled by `contrast-runtime uninstall --group workers --nodes …`.",
    ]);
  });

  test("what becomes of nodes that leave, and which are not waited for", () => {
    const leave = groupSteps({ runtimes: [go], nodes: ["n1"] }, { runtimes: [go], nodes: ["n1"], onDestroy: "leave" });
    expect(linesOf(summaryOf(...leave), "Nodes")).toEqual([
      "known: From now on what is installed stays on nodes that leave `workers`, and on all when `workers` is removed.",
    ]);
    const state = (skip: string, ...tolerations: object[]) => ({
      metadata: { annotations: { [skipNodesAnnotation]: skip } },
      spec: { template: { spec: { containers: [], tolerations } } },
    });
    const step = { op: "update", type: "kubernetes:apps/v1:DaemonSet", name: "contrast-installer-workers" };
    const summary = summaryOf({ ...step, before: state("n1,n2"), after: state("n2,n3", { operator: "Exists" }) });
    expect(linesOf(summary, "Nodes")).toEqual([
      "known: `contrast-installer-workers`: rollout and removal do not wait for `n3`.",
      "known: `contrast-installer-workers`: rollout and removal wait again for `n1`.",
      "unknown: Whether nodes with the taints that `contrast-installer-workers` tolerates now join: containerd restarts once on each.",
    ]);
  });

  test("nodes that change their group at once, as when it is renamed, are refused by the new one", () => {
    const refusal = /^predicted: Installers of `b` refuse nodes that `a` still has, and the update, .* fails\./;
    const move = (
      before: GroupState["nodes"],
      after: GroupState["nodes"],
      rest?: GroupState["nodes"],
      runtimes = [go],
    ) =>
      linesOf(
        summaryOf(
          ...groupSteps(
            { group: "a", runtimes, nodes: before },
            rest ? { group: "a", runtimes: [go], nodes: rest } : undefined,
          ),
          ...groupSteps(undefined, { group: "b", runtimes: [go], nodes: after }),
        ),
        "Nodes",
      ).filter((line) => line.includes("refuse"));
    for (const refused of [
      move({ pool: "x" }, { pool: "x" }),
      move("all", { pool: "x" }),
      move(["n1", "n2"], ["n2"], ["n1"]),
    ]) {
      expect(refused).toHaveLength(1);
      expect(refused[0]).toMatch(refusal);
    }
    expect(move({ pool: "x" }, { pool: "y" })).toEqual([]);
    expect(move(["n1"], ["n2"], ["n1", "n3"])).toEqual([]);
    expect(move("all", "all", undefined, [])).toEqual([]);
  });

  test("a group that is renamed, its nodes taken over as they are", () => {
    const summary = summaryOf(
      ...groupSteps({ runtimes: [go] }, { group: "renamed", formerly: "workers", runtimes: [go] }),
    );
    expect(linesOf(summary, "Nodes")).toEqual([
      "known: Group `workers` is renamed to `renamed`.",
      "predicted: Installers of `renamed` take over its nodes as they are: the name alone changes nothing else on them.",
    ]);
    expect(linesOf(summary, "Restarts of containerd")).toEqual([
      "predicted: Group `renamed`: nothing that containerd reads changes; it does not restart.",
    ]);
  });

  test("what joins is installed, and restarts there", () => {
    const steps = groupSteps(
      { runtimes: [go], nodes: ["n1", "n2"] },
      { runtimes: [go], nodes: ["n2", "n3"], atOnce: 3 },
    );
    expect(linesOf(summaryOf(...steps), "Restarts of containerd")).toEqual([
      "predicted: Group `workers`: containerd restarts once on each node that joins, when the runtime is installed there; at most 1 restart on 1 node.",
    ]);
    const left = groupSteps({ runtimes: [go], nodes: ["n1", "n2"] }, { runtimes: [go], nodes: ["n2"], atOnce: 3 });
    expect(linesOf(summaryOf(...left), "Restarts of containerd")).toEqual([
      "predicted: Group `workers`: nothing that containerd reads changes; it does not restart.",
    ]);
    const empty = groupSteps({ runtimes: [], nodes: ["n1"] }, { runtimes: [], nodes: ["n2"] });
    const summary = summaryOf(...empty, ...groupSteps(undefined, { group: "b", runtimes: [] }));
    expect(linesOf(summary, "Restarts of containerd")).toEqual(
      ["b", "workers"].map(
        (group) => `predicted: Group \`${group}\`: nothing that containerd reads changes; it does not restart.`,
      ),
    );
    const other = groupSteps(
      { runtimes: [go], nodes: { pool: "a" } },
      { runtimes: [go], nodes: { pool: "b" }, image: image("b") },
    );
    expect(linesOf(summaryOf(...other), "Restarts of containerd")).toEqual([
      "predicted: Group `workers`: containerd restarts once on each node that joins, when the runtime is installed there.",
      "unknown: Group `workers`: how many nodes join.",
    ]);
  });

  test("other labels: which nodes is unknown", () => {
    const steps = groupSteps({ runtimes: [go], nodes: { pool: "a" } }, { runtimes: [go], nodes: { pool: "b" } });
    expect(linesOf(summaryOf(...steps), "Nodes")[1]).toMatch(/^unknown: Which nodes join/);
  });

  test("hosts that are skipped, and no more", () => {
    const hosts = (...names: string[]) => names.map((name) => ({ name }));
    const skipped = { before: ["back", "gone"], after: ["dies", "never-there"] };
    const summary = summaryOf(hostStep(hosts("back", "gone", "dies"), hosts("back", "dies", "never-there"), skipped));
    expect(linesOf(summary, "Nodes").filter((line) => line.includes("skipped"))).toEqual([
      "known: Host `dies` is skipped, for `ignoreNodes` names it: nothing is run on it by SSH.",
      "known: Host `never-there` is skipped, for `ignoreNodes` names it: nothing is run on it by SSH.",
      "known: Host `back` is no longer skipped: what was not run on it before is run now.",
    ]);
    expect(linesOf(summary, "Nodes").join()).not.toContain("made ready");
  });

  test("hosts, and their keys under security", () => {
    const host = (name: string, key: string) => ({ name, hostKey: `ssh-ed25519 ${key}` });
    const summary = summaryOf(
      hostStep(
        [host("h1", "AAAA"), host("h2", "BBBB")],
        [{ ...host("h1", "CCCC"), address: "192.0.2.9" }, host("h3", "DDDD")],
      ),
    );
    expect(linesOf(summary, "Nodes")).toEqual([
      "known: Host `h3` (`192.0.2.1`) is made ready by SSH.",
      "known: Host `h2` (`192.0.2.1`) leaves `snp-hosts`.",
      "predicted: What was prepared on such a host is taken back by SSH; it stays a member of the cluster.",
      "known: Host `h1` is at `192.0.2.9` instead of `192.0.2.1`.",
    ]);
    expect(linesOf(summary, "Security")).toEqual([
      "known: Host `h1` is trusted by its key `ssh-ed25519 AAAA` → `ssh-ed25519 CCCC`.",
      "known: Host `h3` is trusted by its key `ssh-ed25519 DDDD`.",
    ]);
  });

  test("commands that are run on hosts, those of one text in one line, whatever secret is why", () => {
    const command = (name: string, op = "update", script = "true"): DocumentStep => ({
      op,
      type: "command:remote:Command",
      name,
      ...(op === "update" && { before: { create: "sh -s", stdin: "true" } }),
      after: { create: "sh -s", stdin: script },
    });
    const summary = summaryOf(
      ...["h-1", "h-2"].flatMap((host) => [
        command(commandName(host, "prepare")),
        command(commandName(host, "check"), "update", "false"),
      ]),
      command(commandName("h-4", "join"), "create"),
    );
    expect(linesOf(summary, "Commands")).toEqual([
      "known: On 2 hosts, SSH runs `h-1-check`, `h-2-check` again (create).",
      "known: On 2 hosts, SSH runs `h-1-prepare`, `h-2-prepare` again (create).",
      "known: On 1 host, SSH runs `h-4-join` (create).",
    ]);
    const blocks = summary.sections.find(({ title }) => title === "Commands")?.lines.map(({ block }) => block);
    expect(blocks).toEqual([
      '- stdin: "true"\n+ stdin: "false"',
      "~ (everything): a value that is not shown changes",
      '+ create: "sh -s"\n+ stdin: "true"',
    ]);
  });

  const pool = (op: string, before?: object, after?: object, paths: string[] = []): DocumentStep => ({
    op,
    type: "azure-native:containerservice:AgentPool",
    name: "cc-pool",
    ...(before && { before: { agentPoolName: "cc", ...before } }),
    ...(after && { after: { agentPoolName: "cc", ...after } }),
    paths,
  });
  test.each([
    ["create", pool("create", undefined, { count: 2 }), ["known: Pool `cc` is created with 2 nodes."]],
    [
      "scale out",
      pool("update", { count: 2 }, { count: 3 }, ["count"]),
      [
        "known: Pool `cc` has 3 nodes instead of 2.",
        "predicted: 1 new node: Azure may refuse, since Microsoft retired the service in March 2026.",
      ],
    ],
    [
      "scale in",
      pool("update", { count: 3 }, { count: 2 }, ["count"]),
      [
        "known: Pool `cc` has 2 nodes instead of 3.",
        "predicted: Azure chooses which 1 node to remove, with the pods on it.",
      ],
    ],
    [
      "labels",
      pool("update", { count: 2 }, { count: 2 }, ["nodeLabels"]),
      ["known: Pool `cc` is changed in place: `nodeLabels`."],
    ],
    [
      "labels and scale out at once",
      pool("update", { count: 2 }, { count: 3 }, ["count", "nodeLabels"]),
      [
        "known: Pool `cc` is changed in place: `nodeLabels`.",
        "known: Pool `cc` has 3 nodes instead of 2.",
        "predicted: 1 new node",
      ],
    ],
    [
      "a size that only the update will know",
      pool("update", { count: 2 }, { count: "04da6b54-80e4-46f7-96ec-b56ff0331ba9" }, ["count"]),
      ["unknown: How many nodes pool `cc` has from then on."],
    ],
    [
      "import",
      pool("import", undefined, { count: 2 }),
      ["known: Pool `cc` with 2 nodes is imported: the stack manages it from then on."],
    ],
    [
      "replace",
      pool("replace", { count: 3 }, { count: 3 }, ["vmSize"]),
      [
        "known: Pool `cc` is replaced because of `vmSize`.",
        "predicted: It is re-imaged: 3 nodes and all pods on them go first",
      ],
    ],
    ["delete", pool("delete", { count: 3 }), ["known: Pool `cc` is deleted with 3 nodes."]],
  ] as [string, DocumentStep, string[]][])("a pool: %s", (_name, step, expected) => {
    const lines = linesOf(summaryOf(step), "Nodes");
    for (const [index, text] of expected.entries()) expect(lines[index]).toContain(text);
  });

  test.each([
    ["grows", pool("update", { count: 2 }, { count: 5 }, ["count"]), 3],
    ["is replaced", pool("replace", { count: 2 }, { count: 2 }, ["vmSize"]), 2],
    ["shrinks", pool("update", { count: 5 }, { count: 2 }, ["count"]), 0],
    ["goes", pool("delete", { count: 5 }), 0],
  ] as const)("a pool that %s restarts containerd on the nodes that are new", (_name, step, nodes) => {
    expect(linesOf(summaryOf(step), "Restarts of containerd")).toEqual(
      nodes === 0
        ? []
        : [
            "predicted: Pool `cc`: containerd restarts once on each node that Azure makes, when the runtime is installed " +
              `there; at most ${nodes} restarts on ${nodes} nodes.`,
          ],
    );
  });

  const poolCard = (count: number) => aksCocoNodePoolCard.build({ pool: "cc", vmSize: "Standard_DC4as_cc_v5", count });

  test("the new nodes of a pool are counted once, with those that were there", () => {
    const nodes = { "kubernetes.azure.com/agentpool": "cc" };
    const card = { op: "update", type: aksCocoNodePoolCard.type, name: "cc-pool" };
    const summary = summaryOf(
      ...groupSteps({ runtimes: [go], nodes }, { runtimes: [go, next], nodes }),
      { ...card, before: poolCard(2), after: poolCard(3) },
      pool("update", { count: 2 }, { count: 3 }, ["count"]),
    );
    expect(linesOf(summary, "Restarts of containerd")).toHaveLength(1);
    expect(linesOf(summary, "Restarts of containerd")[0]).toContain("at most 3 restarts on 3 nodes");
  });

  test("a pool's size bounds the restarts of the group that selects it, as far as the document says it", () => {
    const nodes = { "kubernetes.azure.com/agentpool": "cc" };
    const steps = groupSteps({ runtimes: [go], nodes }, { runtimes: [go, next], nodes });
    const refreshed: DocumentStep = {
      op: "refresh",
      type: aksCocoNodePoolCard.type,
      name: "cc-pool",
      before: poolCard(7),
      after: poolCard(7),
    };
    expect(linesOf(summaryOf(...steps, refreshed), "Restarts of containerd")[0]).toContain(
      "at most 7 restarts on 7 nodes",
    );
    expect(linesOf(summaryOf(...steps), "Restarts of containerd")[1]).toMatch(/^unknown: How many nodes/);
  });
});
