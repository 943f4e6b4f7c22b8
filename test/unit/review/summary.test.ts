import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import type { Manifest } from "../../../node-installer/runtime/manifest.ts";
import { deriveRuntime } from "../../../node-installer/runtime/render.ts";
import type { PlatformName } from "../../../node-installer/runtime/spec.ts";
import { renderMarkdown } from "../../../review/markdown.ts";
import { readPreview } from "../../../review/preview.ts";
import { canonical, summarize } from "../../../review/summary.ts";
import { fixtureManifest } from "../runtime/fixtures.ts";
import {
  type DocumentStep,
  document,
  groupSteps,
  image,
  launchStep,
  linesOf,
  previewOf,
  summaryOf,
} from "./documents.ts";

const runtime = (manifest: Manifest | string = "contrast-go", platform: PlatformName = "metal-qemu-snp") =>
  deriveRuntime({ platform, manifest: typeof manifest === "string" ? fixtureManifest(manifest) : manifest });
const go = runtime();
const next = runtime("contrast-go-next");
const otherKernel = runtime({
  ...fixtureManifest("contrast-go"),
  name: "patched",
  files: fixtureManifest("contrast-go").files.map((file) =>
    file.role === "kernel" ? { ...file, sha256: "9".repeat(64) } : file,
  ),
});

describe("runtimes", () => {
  test("a runtime that is added", () => {
    const summary = summaryOf(...groupSteps({ runtimes: [go] }, { runtimes: [go, next] }));
    expect(linesOf(summary, "Runtimes")).toEqual([
      `known: Group \`workers\` gets \`${next.handler}\` (platform \`metal-qemu-snp\`, payload \`fixture-contrast-go-next\`).`,
    ]);
    expect(linesOf(summary, "Restarts of containerd")[0]).toBe(
      "predicted: Group `workers`: containerd restarts at most once on each node, 1 at a time. Pods keep running.",
    );
  });

  test("a runtime that is removed is retired, and pods that use it stop the update", () => {
    const lines = linesOf(summaryOf(...groupSteps({ runtimes: [go, next] }, { runtimes: [next] })), "Runtimes");
    expect(lines[0]).toContain(`known: Group \`workers\` loses \`${go.handler}\``);
    expect(lines[1]).toMatch(/^predicted: .*While pods do, the update fails and names them\.$/);
  });

  test("a payload edited in place is one exchange, with what differs", () => {
    const summary = summaryOf(...groupSteps({ runtimes: [go] }, { runtimes: [otherKernel] }));
    expect(linesOf(summary, "Runtimes")[0]).toBe(
      `known: Group \`workers\` exchanges \`${go.handler}\` (platform \`metal-qemu-snp\`, payload \`fixture-contrast-go\`) ` +
        `for \`${otherKernel.handler}\`, payload \`patched\`. What differs: the kernel.`,
    );
    expect(linesOf(summary, "Restarts of containerd")[0]).toContain("at most twice");
  });

  test("two groups with the same change are two lines each, and their restarts are added up", () => {
    const steps = ["a", "b"].flatMap((group, index) =>
      groupSteps(
        { group, runtimes: [go], nodes: ["n1", "n2"].slice(index), atOnce: 2 },
        { group, runtimes: [go, next], nodes: ["n1", "n2"].slice(index), atOnce: 2 },
      ),
    );
    expect(linesOf(summaryOf(...steps), "Restarts of containerd")).toEqual([
      "predicted: Group `a`: containerd restarts at most once on each node, 2 at a time; at most 2 restarts on 2 nodes. Pods keep running.",
      "predicted: Group `b`: containerd restarts at most once on each node, 2 at a time; at most 1 restart on 1 node. Pods keep running.",
      "predicted: In all groups: at most 3 restarts.",
    ]);
  });

  test("a group that leaves with onDestroy: leave is left as it is, and nothing restarts", () => {
    const summary = summaryOf(...groupSteps({ runtimes: [go], onDestroy: "leave" }, undefined));
    expect(linesOf(summary, "Runtimes")).toContainEqual(expect.stringContaining("what is on its nodes stays there"));
    expect(linesOf(summary, "Restarts of containerd")).toEqual([]);
  });

  test("where something else applies the manifests, no update waits or fails, and a group that goes leaves its nodes", () => {
    const [manifestsOnly, nodes] = [true, ["n1"]];
    const state = (...runtimes: (typeof go)[]) => ({ runtimes, manifestsOnly, nodes });
    const removed = summaryOf(...groupSteps(state(go, next), { ...state(next), nodes: ["n2"] }));
    expect(linesOf(removed, "Runtimes")[1]).toMatch(/uninstalled when no pod uses it\. Nothing waits for that\.$/);
    expect(linesOf(removed, "Nodes").at(-1)).toContain("No update names them; `contrast-runtime status` does.");
    const gone = summaryOf(...groupSteps(state(go), undefined));
    expect(linesOf(gone, "Runtimes")[1]).toContain(
      "what is on its nodes stays there: removed manifests uninstall nothing.",
    );
    expect(linesOf(gone, "Restarts of containerd")).toEqual([]);
  });

  test("from a cluster to manifests, the update uninstalls", () => {
    const state = { runtimes: [go], nodes: ["n1", "n2"] };
    const summary = summaryOf(...groupSteps(state, { ...state, manifestsOnly: true }));
    expect(linesOf(summary, "Runtimes")).toEqual([
      expect.stringMatching(/^predicted: The update uninstalls what is on/),
    ]);
    expect(linesOf(summary, "Restarts of containerd")[0]).toContain("at most 2 restarts on 2 nodes");
    const left = summaryOf(...groupSteps({ ...state, onDestroy: "leave" }, { ...state, manifestsOnly: true }));
    expect(linesOf(left, "Runtimes")).toEqual([]);
  });

  test("another distribution, and payloads that only have another name", () => {
    const renamed = { ...go, payload: "renamed" };
    expect(
      linesOf(summaryOf(...groupSteps({ runtimes: [go] }, { runtimes: [renamed] })), "Restarts of containerd"),
    ).toEqual(["predicted: Group `workers`: nothing that containerd reads changes; it does not restart."]);
    const other = groupSteps({ runtimes: [go] }, { runtimes: [go], distribution: "k3s" });
    expect(linesOf(summaryOf(...other), "Restarts of containerd").at(-1)).toBe(
      "unknown: Whether each node of `workers` accepts the other distribution.",
    );
  });

  test("another pace alone restarts nothing", () => {
    const summary = summaryOf(...groupSteps({ runtimes: [go] }, { runtimes: [go], atOnce: 5 }));
    expect(linesOf(summary, "Restarts of containerd")).toEqual([
      "predicted: Group `workers`: nothing that containerd reads changes; it does not restart.",
    ]);
    expect(linesOf(summary, "Runtimes")).toEqual([]);
  });

  test("settings of installers, and what of a runtime its handler's name does not say", () => {
    const host = { ...go.host, guestPull: !go.host.guestPull };
    const summary = summaryOf(
      ...groupSteps({ runtimes: [go] }, { runtimes: [{ ...go, host }], atOnce: 50, distribution: "k3s" }),
    );
    expect(linesOf(summary, "Nodes")).toEqual([
      "known: Group `workers`: `atOnce` `1` → `50`.",
      "known: Group `workers`: `distribution.name` `containerd` → `k3s`.",
      `known: Group \`workers\`, \`${go.handler}\`: \`host.guestPull\` \`${go.host.guestPull}\` → \`${host.guestPull}\`.`,
    ]);
  });

  test("which nodes a class's pods land on", () => {
    const spec = (value: string) => ({ handler: go.handler, scheduling: { nodeSelector: { label: value } } });
    const step = {
      type: "kubernetes:node.k8s.io/v1:RuntimeClass",
      name: "c",
      before: spec("true"),
      after: spec("any"),
    };
    const changed = "known: RuntimeClass `c`: `scheduling.nodeSelector.label` `true` → `any`.";
    expect(linesOf(summaryOf({ ...step, op: "update" }), "Runtimes")).toEqual([changed]);
    expect(linesOf(summaryOf({ ...step, op: "replace" }), "Runtimes")).toEqual([
      changed,
      "known: RuntimeClass `c` is deleted and created again.",
    ]);
  });

  test("another overhead", () => {
    const spec = (memory: string) => ({ handler: go.handler, overhead: { podFixed: { memory } } });
    const step = { op: "update", type: "kubernetes:node.k8s.io/v1:RuntimeClass", name: go.handler };
    const lines = linesOf(summaryOf({ ...step, before: spec("682Mi"), after: spec("1Gi") }), "Runtimes");
    expect(lines[0]).toBe(
      `known: RuntimeClass \`${go.handler}\`: overhead \`{"memory":"682Mi"}\` → \`{"memory":"1Gi"}\`.`,
    );
  });
});

describe("attestation", () => {
  const [old, now] = ["a".repeat(96), "b".repeat(96)];

  test("values that change, and the measured inputs that are why", () => {
    const state = (launch: string, kernel: string, line: string) => ({
      launch: { "EPYC-Milan launch digest": launch },
      measured: { kernel: kernel.repeat(64), "kernel command line": `quiet ${line}` },
    });
    const attestation = (before: ReturnType<typeof state>, after: typeof before) =>
      linesOf(
        summaryOf(
          launchStep({ [go.handler]: before }, { [otherKernel.handler]: after }),
          ...groupSteps({ runtimes: [go] }, { runtimes: [otherKernel] }),
        ),
        "Attestation",
      );
    const changed = `known: \`${otherKernel.handler}\`: EPYC-Milan launch digest with one vCPU \`${old}\` → \`${now}\`.`;
    const refused = `predicted: Verifiers that do not know these values refuse pods of \`${otherKernel.handler}\`.`;
    expect(attestation(state(old, "8", "a=1"), state(now, "9", "a=`2`"))).toEqual([
      changed,
      `known: \`${otherKernel.handler}\`: SNP launch digests change because of the kernel (\`888888888888…\` → \`999999999999…\`) and kernel command line (\`a=1\` → \`a= 2 \`).`,
      refused,
    ]);
    expect(attestation(state(old, "8", "a"), state(now, "8", "a"))).toEqual([
      changed,
      `unknown: Why the values of \`${otherKernel.handler}\` differ: nothing that its manifest says of measurements does.`,
      refused,
    ]);
  });

  test("a runtime whose launch is the same is said to be", () => {
    const launch = { launch: { "EPYC-Milan launch digest": old } };
    const steps = groupSteps({ runtimes: [go] }, { runtimes: [next] });
    const lines = linesOf(
      summaryOf(launchStep({ [go.handler]: launch }, { [next.handler]: launch }), ...steps),
      "Attestation",
    );
    expect(lines).toEqual([
      `known: Verifiers see the same launch values of \`${next.handler}\` as of \`${go.handler}\`.`,
    ]);
  });

  test("a runtime that another group has already is nothing new to verifiers", () => {
    const cards = { [go.handler]: { launch: { "EPYC-Milan launch digest": old } } };
    const steps = groupSteps(undefined, { group: "second", runtimes: [go] });
    expect(linesOf(summaryOf(launchStep(cards, cards), ...steps), "Attestation")).toEqual([]);
  });

  test("values that change although the files do not, as when somebody edits a manifest", () => {
    const state = (launch: string, kernel: string) => ({
      launch: { "EPYC-Milan launch digest": launch },
      measured: { kernel: kernel.repeat(64) },
    });
    const [before, after] = [{ [go.handler]: state(old, "8") }, { [go.handler]: state(now, "9") }];
    expect(linesOf(summaryOf(launchStep(before, after)), "Attestation")).toEqual([
      `known: \`${go.handler}\`: EPYC-Milan launch digest with one vCPU \`${old}\` → \`${now}\`.`,
      `known: \`${go.handler}\`: SNP launch digests change because of the kernel (\`888888888888…\` → \`999999999999…\`).`,
      `predicted: The files of \`${go.handler}\` stay the same, and so does what its guests measure: the values are wrong now, or were before.`,
    ]);
    expect(linesOf(summaryOf(launchStep(before, before)), "Attestation")).toEqual([]);
    const lost = linesOf(summaryOf(launchStep(before, { [go.handler]: { launch: {} } })), "Attestation");
    expect(lost[0]).toBe(`known: \`${go.handler}\`: EPYC-Milan launch digest with one vCPU \`${old}\` → \`nothing\`.`);
  });

  test("each of a program's several runtimes has its own card", () => {
    const launch = { launch: { "EPYC-Milan launch digest": old } };
    const first = launchStep({}, {});
    const second = { ...launchStep({}, { [go.handler]: launch }), name: "second" };
    const lines = linesOf(summaryOf(first, second, ...groupSteps({ runtimes: [] }, { runtimes: [go] })), "Attestation");
    expect(lines).toEqual([`known: \`${go.handler}\`: EPYC-Milan launch digest with one vCPU \`${old}\`.`]);
  });

  test("a value that cannot be predicted changes, too, when what it is made of does", () => {
    const state = (kernel: string) => ({
      launch: { MRTD: now, RTMR1: "not predictable: depends on the VMM" },
      measured: { firmware: now, kernel: kernel.repeat(64) },
    });
    const [before, after] = [runtime("contrast-go", "metal-qemu-tdx"), runtime("contrast-go-next", "metal-qemu-tdx")];
    const lines = linesOf(
      summaryOf(
        launchStep({ [before.handler]: state("8") }, { [after.handler]: state("9") }),
        ...groupSteps({ runtimes: [before] }, { runtimes: [after] }),
      ),
      "Attestation",
    );
    expect(lines).toEqual([
      `known: \`${after.handler}\`: RTMR1 changes because of the kernel (\`888888888888…\` → \`999999999999…\`).`,
      `predicted: Verifiers that do not know these values refuse pods of \`${after.handler}\`.`,
    ]);
  });

  test("without measurements the values are unknown, and so are those that cannot be predicted", () => {
    const steps = groupSteps({ runtimes: [] }, { runtimes: [go] });
    expect(linesOf(summaryOf(...steps), "Attestation")[0]).toMatch(/^unknown: What a verifier will see/);
    const launch = { MRTD: now, RTMR0: "not predictable: depends on the VMM" };
    expect(linesOf(summaryOf(launchStep({}, { [go.handler]: { launch } }), ...steps), "Attestation")).toEqual([
      `known: \`${go.handler}\`: MRTD \`${now}\`.`,
      `unknown: \`${go.handler}\`: RTMR0 \`not predictable: depends on the VMM\`.`,
    ]);
  });
});

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
      metadata: { annotations: { "runtime.contrast.edgeless.systems/skip-nodes": skip } },
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
    const move = (before: unknown, after: unknown, rest?: unknown, runtimes = [go]) =>
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
    const host = (name: string, skipped?: string) => ({
      name,
      address: "192.0.2.1",
      hostKey: "ssh-ed25519 AAAA",
      skipped,
    });
    const summary = summaryOf({
      op: "update",
      type: "contrast-runtime:index:BareMetalNodes",
      name: "snp-hosts",
      before: { hosts: [host("back", "named"), host("gone", "named"), host("dies")] },
      after: { hosts: [host("back"), host("dies", "named"), host("never-there", "named")] },
    });
    expect(linesOf(summary, "Nodes").filter((line) => line.includes("skipped"))).toEqual([
      "known: Host `dies` is skipped, for `ignoreNodes` names it: nothing is run on it by SSH.",
      "known: Host `never-there` is skipped, for `ignoreNodes` names it: nothing is run on it by SSH.",
      "known: Host `back` is no longer skipped: what was not run on it before is run now.",
    ]);
    expect(linesOf(summary, "Nodes").join()).not.toContain("made ready");
  });

  test("hosts, and their keys under security", () => {
    const host = (name: string, key: string, address = "192.0.2.1") => ({
      name,
      address,
      hostKey: `ssh-ed25519 ${key}`,
    });
    const summary = summaryOf({
      op: "update",
      type: "contrast-runtime:index:BareMetalNodes",
      name: "snp-hosts",
      before: { hosts: [host("h1", "AAAA"), host("h2", "BBBB")] },
      after: { hosts: [host("h1", "CCCC", "192.0.2.9"), host("h3", "DDDD")] },
    });
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

  test("commands that are run on hosts of before, whatever secret is why", () => {
    const command = (name: string, op = "update") => ({
      op,
      type: "command:remote:Command",
      name,
      before: {},
      after: {},
    });
    const summary = summaryOf(
      ...["h-1", "h-2"].flatMap((host) => [command(`${host}-prepare`), command(`${host}-check`)]),
      command("h-3-join"),
      command("h-4-join", "create"),
    );
    expect(linesOf(summary, "Nodes")).toEqual([
      "known: On 2 hosts that are there already, SSH runs `check` and `prepare`: `h-1`, `h-2`.",
      "known: On 1 host that is there already, SSH runs `join`: `h-3`.",
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

  test("the new nodes of a pool are counted once, with those that were there", () => {
    const nodes = { "kubernetes.azure.com/agentpool": "cc" };
    const card = { op: "update", type: "contrast-runtime:index:AksCocoNodePool", name: "cc-pool" };
    const summary = summaryOf(
      ...groupSteps({ runtimes: [go], nodes }, { runtimes: [go, next], nodes }),
      { ...card, before: { pool: "cc", count: 2 }, after: { pool: "cc", count: 3 } },
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
      type: "contrast-runtime:index:AksCocoNodePool",
      name: "cc-pool",
      before: { pool: "cc", vmSize: "Standard_DC4as_cc_v5", count: 7 },
      after: { pool: "cc", vmSize: "Standard_DC4as_cc_v5", count: 7 },
    };
    expect(linesOf(summaryOf(...steps, refreshed), "Restarts of containerd")[0]).toContain(
      "at most 7 restarts on 7 nodes",
    );
    expect(linesOf(summaryOf(...steps), "Restarts of containerd")[1]).toMatch(/^unknown: How many nodes/);
  });
});

describe("security", () => {
  const daemonSet = (spec: object) => ({ spec: { template: { spec } } });
  const container = { name: "installer", image: image("a"), securityContext: { privileged: false } };
  const updated = (before: object, after: object): DocumentStep => ({
    op: "update",
    type: "kubernetes:apps/v1:DaemonSet",
    name: "installer",
    before: daemonSet(before),
    after: daemonSet(after),
  });

  test("another image of the installer, under its digests", () => {
    const summary = summaryOf(...groupSteps({ runtimes: [go] }, { runtimes: [go], image: image("b") }));
    expect(linesOf(summary, "Security")).toEqual([
      `known: Group \`workers\`: the installer, which is root on its nodes, is \`${image("a")}\` → \`${image("b")}\`.`,
    ]);
    expect(linesOf(summary, "Restarts of containerd")).toEqual([
      "predicted: Group `workers`: installers restart with the new image; containerd does not.",
    ]);
  });

  test("an image that only the update will know", () => {
    const pending = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";
    const summary = summaryOf(...groupSteps(undefined, { runtimes: [go], image: pending }));
    expect(linesOf(summary, "Security")).toEqual([
      "unknown: Group `workers`: the installer, which is root on its nodes, is `not known yet`.",
    ]);
  });

  test("privileges, whatever part of the pod gives them", () => {
    const before = {
      containers: [container],
      hostNetwork: false,
      volumes: [{ name: "host", hostPath: { path: "/opt" } }],
    };
    const after = {
      containers: [{ ...container, securityContext: { privileged: true, capabilities: { add: ["SYS_ADMIN"] } } }],
      hostNetwork: true,
      volumes: [{ name: "host", hostPath: { path: "/" } }],
    };
    expect(linesOf(summaryOf(updated(before, after)), "Security")).toEqual([
      'known: DaemonSet `installer`: pod\'s `containers[0].securityContext.capabilities` `nothing` → `{"add":["SYS_ADMIN"]}`.',
      "known: DaemonSet `installer`: pod's `containers[0].securityContext.privileged` `false` → `true`.",
      "known: DaemonSet `installer`: pod's `hostNetwork` `false` → `true`.",
      "known: DaemonSet `installer`: pod's `volumes[0].hostPath.path` `/opt` → `/`.",
    ]);
  });

  test("the privileges of a new pod are those of all its containers", () => {
    const snapshotter = { name: "snapshotter", securityContext: { privileged: true } };
    const spec = { containers: [{ ...container, securityContext: { capabilities: { add: ["CHOWN"] } } }, snapshotter] };
    const step = { op: "create", type: "kubernetes:apps/v1:DaemonSet", name: "installer", after: daemonSet(spec) };
    expect(linesOf(summaryOf(step), "Security")).toEqual([
      "known: DaemonSet `installer` is new; its pods have: `installer: not privileged`; `installer: capabilities CHOWN`; " +
        "`snapshotter: privileged`; `snapshotter: capabilities the runtime's own`.",
    ]);
  });

  test("tolerations that come and go, and variables without their values", () => {
    const before = {
      containers: [{ ...container, env: [{ name: "A", value: "hush" }] }],
      tolerations: [{ key: "old" }],
    };
    const after = {
      containers: [{ ...container, env: [{ name: "A", value: "hush-hush" }] }],
      tolerations: [{ operator: "Exists" }],
    };
    const lines = linesOf(summaryOf(updated(before, after)), "Security");
    expect(lines).toEqual([
      'known: DaemonSet `installer` tolerates `{"operator":"Exists"}`.',
      'known: DaemonSet `installer` no longer tolerates `{"key":"old"}`.',
      "known: DaemonSet `installer`: pod's `containers[0].env[0].value` changes.",
    ]);
  });

  test("what a refreshed state leaves out because it is false or empty is no change", () => {
    expect(
      linesOf(
        summaryOf(
          updated({ containers: [container] }, { containers: [container], hostIPC: false, imagePullSecrets: [] }),
        ),
        "Security",
      ),
    ).toEqual([]);
  });

  test("rights that are given and taken", () => {
    const role = (...verbs: string[]) => ({
      rules: verbs.map((verb) => ({ apiGroups: [""], resources: ["nodes"], verbs: [verb] })),
    });
    const step = { op: "update", type: "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole", name: "installer" };
    expect(
      linesOf(summaryOf({ ...step, before: role("patch", "get"), after: role("patch", "delete") }), "Security"),
    ).toEqual([
      "known: ClusterRole `installer` allows: `delete nodes`.",
      "known: ClusterRole `installer` no longer allows: `get nodes`.",
    ]);
    const leases = (...resourceNames: string[]) => ({
      rules: [{ apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["get", "patch"], resourceNames }],
    });
    expect(
      linesOf(summaryOf({ ...step, before: leases("t-0"), after: leases("t-0", "t-1", "t-2") }), "Security"),
    ).toEqual(["known: ClusterRole `installer` allows: `get, patch leases of coordination.k8s.io named t-1, t-2`."]);
    const url = { rules: [{ nonResourceURLs: ["/metrics"], verbs: ["get"] }] };
    expect(linesOf(summaryOf({ ...step, before: role(), after: url }), "Security")).toEqual([
      "known: ClusterRole `installer` allows: `get /metrics`.",
    ]);
  });

  test("an admission policy that is weakened or goes", () => {
    const type = "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicy";
    const lines = linesOf(
      summaryOf(
        {
          op: "update",
          type,
          name: "a",
          before: { spec: { failurePolicy: "Fail" } },
          after: { spec: { failurePolicy: "Ignore" } },
        },
        { op: "delete", type, name: "b", before: {} },
      ),
      "Security",
    );
    expect(lines).toEqual([
      "known: ValidatingAdmissionPolicy `a`: `spec.failurePolicy` `Fail` → `Ignore`.",
      "known: ValidatingAdmissionPolicy `b`, which limits what installers may do, is removed.",
    ]);
  });

  test("insecure and experimental platforms", () => {
    const gpu = runtime("contrast-go", "metal-qemu-snp-gpu");
    const local = runtime("local", "local");
    const lines = linesOf(summaryOf(...groupSteps({ runtimes: [] }, { runtimes: [gpu, local] })), "Security");
    expect(lines).toEqual([
      `known: \`${gpu.handler}\` is experimental: nobody has run platform \`metal-qemu-snp-gpu\` on its hardware.`,
      `known: \`${local.handler}\` is insecure: platform \`local\` has no TEE, nothing in its pods is confidential.`,
    ]);
  });

  test("another cluster", () => {
    const step = { op: "replace", type: "pulumi:providers:kubernetes", name: "kubernetes" };
    const [line] = linesOf(
      summaryOf({ ...step, before: { clusterIdentifier: "a" }, after: { clusterIdentifier: "b" } }),
      "Security",
    );
    expect(line).toBe("known: Another cluster: `a` → `b`.");
  });

  test("another cluster's nodes are all installed; manifests reach none", () => {
    const provider = { op: "replace", type: "pulumi:providers:kubernetes", name: "kubernetes" };
    const group = groupSteps({ runtimes: [go], nodes: ["n1"] }, { runtimes: [go], nodes: ["n1"] });
    const moved = summaryOf(...group, {
      ...provider,
      before: { clusterIdentifier: "a" },
      after: { clusterIdentifier: "b" },
    });
    expect(linesOf(moved, "Restarts of containerd")).toEqual([
      "predicted: Group `workers`: containerd restarts at most once on each node, 1 at a time; at most 1 restart on 1 node. Pods keep running.",
    ]);
    expect(linesOf(moved, "Security")[1]).toContain("what is installed on the old one's nodes stays there");
    const written = { ...provider, before: { clusterIdentifier: "a" }, after: { renderYamlToDirectory: "manifests" } };
    expect(linesOf(summaryOf(written), "Security")[0]).toBe(
      "known: Manifests are written to `manifests`, and cluster `a` is no longer reached.",
    );
    const reached = { ...provider, before: { renderYamlToDirectory: "manifests" }, after: { clusterIdentifier: "a" } };
    expect(linesOf(summaryOf(reached), "Security")[0]).toBe(
      "known: Cluster `a` is reached; until now manifests were written to `manifests`.",
    );
  });

  test("other credentials, which are all that differs; another version of the plugin is none", () => {
    const step = { op: "update", type: "pulumi:providers:kubernetes", name: "kubernetes" };
    const state = (version: string) => ({ clusterIdentifier: "a", kubeconfig: "[secret]", version });
    const told = "unknown: Provider `kubernetes` gets different credentials; whether they lead to the same cluster.";
    const version = "known: Provider `kubernetes`: `version` `4.34.2` → `4.35.0`.";
    const security = (after: object, paths: string[]) =>
      linesOf(summaryOf({ ...step, before: state("4.34.2"), after, paths }), "Security");
    expect(security(state("4.34.2"), [])).toEqual([told]);
    expect(security(state("4.35.0"), ["version"])).toEqual([version]);
    expect(security(state("4.35.0"), ["kubeconfig", "version"])).toEqual([version, told]);
  });
});

describe("the rest", () => {
  test("commands and objects that are none of ours are not passed over", () => {
    const step = { op: "create", after: { create: "curl https://example.com/ | sh" }, foreign: true };
    const types = ["command:local:Command", "kubernetes:core/v1:ConfigMap"];
    const summary = summaryOf(...types.map((type) => ({ ...step, type, name: "other" })));
    expect(linesOf(summary, "Not known here")).toEqual(
      types.map((type) => `unknown: What the create of \`other\` (\`${type}\`) does: it is none of this product's.`),
    );
    const push = { ...step, type: "command:local:Command", name: "installer-image" };
    expect(linesOf(summaryOf(push), "Not known here")).toEqual([]);
  });

  test("another subscription, or other credentials of another provider", () => {
    const step = { op: "update", type: "pulumi:providers:azure-native", name: "default" };
    const state = (subscriptionId: string) => ({ subscriptionId, clientSecret: "[secret]" });
    const paths = ["clientSecret", "subscriptionId"];
    expect(linesOf(summaryOf({ ...step, before: state("a"), after: state("b"), paths }), "Security")).toEqual([
      "known: Provider `default` (`azure-native`): `subscriptionId` `a` → `b`.",
      "known: Provider `default` (`azure-native`): `clientSecret` changes.",
    ]);
  });

  test("what somebody else changed is found by a refresh", () => {
    const type = "kubernetes:core/v1:ServiceAccount";
    const state = (name: string, inputs: object) => ({ op: "refresh", type, name, before: inputs, after: inputs });
    const summary = summaryOf(
      state("gone", { metadata: {} }),
      { op: "create", type, name: "gone", after: { metadata: {} } },
      state("other", { automount: false, secrets: ["a"] }),
      {
        op: "update",
        type,
        name: "other",
        before: { secrets: ["a", "b"] },
        after: { automount: false, secrets: ["a"] },
      },
      state("ours", { secrets: ["a"] }),
      { op: "update", type, name: "ours", before: { secrets: ["a"] }, after: { secrets: ["c"] } },
      state("same", { secrets: ["a"] }),
    );
    expect(linesOf(summary, "Changed from outside")).toEqual([
      "known: `ServiceAccount` `gone` is gone, though the stack did not remove it.",
      "predicted: `ServiceAccount` `gone` is made again.",
      "known: `ServiceAccount` `other` was changed by somebody else: `secrets[1]`.",
      "predicted: `ServiceAccount` `other` is set to what the stack says.",
    ]);
  });

  test("a type that nobody here knows is said to be unknown", () => {
    const summary = summaryOf({ op: "delete", type: "aws:s3/bucket:Bucket", name: "logs", before: {} });
    expect(linesOf(summary, "Not known here")[0]).toMatch(/^unknown: What the delete of `logs`/);
  });

  test("nothing changes", () => {
    expect(renderMarkdown(summaryOf())).toContain("Nothing changes.");
    const waits = { op: "update", type: "command:local:Command", name: "workers-rollout", before: {}, after: {} };
    expect(renderMarkdown(summaryOf(waits))).toContain("Nothing changes that this summary explains.\n\n<details>");
  });

  test("a preview that failed says why, and nothing else", () => {
    const text = JSON.stringify({ steps: [], diagnostics: [{ severity: "error", message: "error: a mistake\n" }] });
    const markdown = renderMarkdown(summarize(readPreview(text)));
    expect(markdown).toContain("**The preview failed.**");
    expect(markdown).toContain("\na mistake\n");
  });

  test("what the engine warns of is told, and is not part of what is approved", () => {
    const warning = { severity: "warning", message: "warning: The feature is not registered.\n" };
    const { steps } = JSON.parse(document([]));
    const summary = summarize(readPreview(JSON.stringify({ steps, diagnostics: [warning, warning] })));
    expect(renderMarkdown(summary)).toContain("### The engine warns\n\n```\nThe feature is not registered.\n```\n");
    expect(canonical(summary)).toBe(canonical(summaryOf()));
  });

  test("properties that differ are read where a plugin names no paths below them, from both forms of a preview", () => {
    const urn = "urn:pulumi:production::contrast-runtime::pulumi:providers:kubernetes::kubernetes";
    const step = { op: "update", urn, oldState: { inputs: {} }, newState: { inputs: {} }, diffReasons: ["kubeconfig"] };
    const metadata = { op: "update", urn, old: { inputs: {} }, new: { inputs: {} }, diffs: ["kubeconfig"] };
    const previews = [
      JSON.stringify({ steps: [step] }),
      `${JSON.stringify({ sequence: 1, resourcePreEvent: { metadata } })}\n{"sequence":2,"summaryEvent":{}}`,
    ].map(readPreview);
    for (const { steps } of previews) expect(steps[0]?.paths).toEqual(["kubeconfig"]);
  });

  test("what is not a preview is refused", () => {
    for (const text of ["", "not JSON", '{"steps": 5}', '{"sequence": 0, "resourcePreEvent": {}}'])
      expect(() => readPreview(text)).toThrow(/pulumi preview --json|Invalid|is not/);
  });

  test("a document that says nothing is not one that says that nothing changes", () => {
    for (const text of ["{}", '{"steps": [], "diagnostics": []}'])
      expect(() => readPreview(text)).toThrow("it has no step, not even the stack's own");
  });

  const stackUrn = "urn:pulumi:production::contrast-runtime::pulumi:pulumi:Stack::contrast-runtime-production";
  const stackEvent = { sequence: 0, resourcePreEvent: { metadata: { op: "same", urn: stackUrn } } };
  const events = (...all: object[]) => all.map((each) => JSON.stringify(each)).join("\n");

  test("events that break off are no preview", () => {
    expect(() => readPreview(events(stackEvent))).toThrow("its last event, the engine's summary, is missing");
    expect(readPreview(events(stackEvent, { sequence: 1, summaryEvent: { result: "succeeded" } })).steps).toEqual([]);
  });

  test("a preview that a policy stops has failed, for the policy's reason where the events say it", () => {
    const policyEvent = { message: "Every container's image is named by digest.", enforcementLevel: "mandatory" };
    const ends = { sequence: 2, summaryEvent: { result: "failed" } };
    const advice = { ...policyEvent, enforcementLevel: "advisory" };
    expect(readPreview(events(stackEvent, { sequence: 1, policyEvent }, ends)).errors).toEqual([policyEvent.message]);
    expect(readPreview(events(stackEvent, { sequence: 1, policyEvent: advice }, ends)).errors).toEqual([
      "The engine only says: failed.",
    ]);
  });

  test("what an update that failed left behind is deleted, whichever way the preview tells it", () => {
    const type = "azure-native:containerservice:AgentPool";
    const urn = `urn:pulumi:production::contrast-runtime::${type}::cc-pool`;
    const steps = (...own: object[]) => JSON.stringify({ steps: [{ op: "same", urn: stackUrn }, ...own] });
    const step = (op: string, state: object = {}) => ({ op, urn, oldState: { inputs: {}, ...state } });
    const left = step("refresh", { delete: true });
    for (const text of [
      steps(step("delete-replaced", { delete: true })),
      steps(step("refresh"), left),
      steps(left, step("delete-replaced", { delete: true })),
      steps(step("create-replacement"), step("replace"), step("delete-replaced"), step("delete-replaced")),
    ]) {
      const summary = summarize(readPreview(text));
      expect(linesOf(summary, "Left behind by an update that failed")).toEqual([
        "known: `AgentPool` `cc-pool`: an earlier update replaced it and did not delete the old one, which is deleted now.",
      ]);
      expect(summary.operations.filter(({ op }) => op === "delete")).toHaveLength(1);
    }
    const replaced = steps(step("create-replacement"), step("replace"), step("delete-replaced"));
    expect(linesOf(summarize(readPreview(replaced)), "Left behind by an update that failed")).toEqual([]);
  });

  test("what cannot be read is said, whatever only the update will know", () => {
    const pending = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";
    const rbac = "kubernetes:rbac.authorization.k8s.io/v1";
    const create = (type: string, after: object): DocumentStep => ({ op: "create", type, name: "it", after });
    const pods = { tolerations: pending, containers: pending, volumes: pending };
    const summary = summaryOf(
      ...["NodeInstaller", "ContrastRuntime", "BareMetalNodes", "LocalCluster"].map((component) =>
        create(`contrast-runtime:index:${component}`, { runtimes: pending, hosts: pending, nodes: pending }),
      ),
      create("kubernetes:core/v1:ConfigMap", { data: { "spec.json": pending } }),
      create("kubernetes:apps/v1:DaemonSet", { spec: { template: { spec: pods } } }),
      create(`${rbac}:Role`, { rules: pending }),
      create(`${rbac}:ClusterRole`, { rules: [{ apiGroups: pending, resources: ["nodes"], verbs: pending }] }),
      create(`${rbac}:RoleBinding`, { subjects: pending, roleRef: pending }),
    );
    const types = [
      ...["BareMetalNodes", "ContrastRuntime", "LocalCluster", "NodeInstaller"].map(
        (each) => `contrast-runtime:index:${each}`,
      ),
      ...["core/v1:ConfigMap", "rbac.authorization.k8s.io/v1:Role", "rbac.authorization.k8s.io/v1:RoleBinding"].map(
        (each) => `kubernetes:${each}`,
      ),
    ];
    expect(new Set(linesOf(summary, "Not known here"))).toEqual(
      new Set(
        types.map((type) => `unknown: What changes in \`it\` (\`${type}\`): this summary cannot read what it holds.`),
      ),
    );
    const security = linesOf(summary, "Security");
    expect(security).toContain("unknown: ClusterRole `it` allows: `not known yet nodes of not known yet`.");
    expect(security).toContain('unknown: DaemonSet `it` tolerates `"not known yet"`.');
    expect(security).toContain("unknown: DaemonSet `it` is new; its pods have: `containers not known yet`.");
  });

  test("a value cannot leave its code span", () => {
    const name = "x` ![](https://example.com/)\n# y";
    const markdown = renderMarkdown(summaryOf({ op: "create", type: "aws:a:B", name, after: {} }));
    expect(markdown).not.toContain("x`");
    expect(markdown).not.toContain("\n# y");
  });

  test("a bar in a name ends no cell of the table", () => {
    const name = "x | ![](https://example.com/) | y";
    const markdown = renderMarkdown(summaryOf({ op: "create", type: "aws:a:B", name, after: {} }));
    expect(markdown.split("\n").find((line) => line.startsWith("| create"))).toBe(
      "| create | `aws:a:B` | `x \\| ![](https://example.com/) \\| y` |  |",
    );
  });

  test("characters that nobody sees are shown", () => {
    const [line] = linesOf(
      summaryOf({ op: "create", type: "aws:a:B", name: "a\u202eb\u200b\u0085", after: {} }),
      "Not known here",
    );
    expect(line).toContain("`a\\u{202e}b\\u{200b}\\u{85}`");
  });

  test("of two long values the part is shown in which they differ", () => {
    const expression = (end: string) => ({ spec: { validations: [{ expression: `${"a && ".repeat(100)}${end}` }] } });
    const type = "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicy";
    const step = { op: "update", type, name: "p", before: expression("own == node"), after: expression("true") };
    expect(linesOf(summaryOf(step), "Security")).toEqual([
      `known: ValidatingAdmissionPolicy \`p\`: \`spec.validations[0].expression\` \`…${"a && ".repeat(10)}own == node\` → \`…${"a && ".repeat(10)}true\`.`,
    ]);
  });

  test("a value that only the update will know makes no line known", () => {
    const host = (address: string) => ({ hosts: [{ name: "h", address, hostKey: "ssh-ed25519 AAAA" }] });
    const lines = linesOf(
      summaryOf({
        op: "update",
        type: "contrast-runtime:index:BareMetalNodes",
        name: "hosts",
        before: host("192.0.2.1"),
        after: host("04da6b54-80e4-46f7-96ec-b56ff0331ba9"),
      }),
      "Nodes",
    );
    expect(lines).toEqual(["unknown: Host `h` is at `not known yet` instead of `192.0.2.1`."]);
  });

  test("a comment is never longer than a forge takes", () => {
    const steps = Array.from({ length: 3_000 }, (_, number) => ({
      op: "create",
      type: "aws:a:B",
      name: `n${number}`,
      after: {},
    }));
    const markdown = renderMarkdown(summaryOf(...steps));
    expect(markdown.length).toBeLessThan(65_536);
    expect(markdown).toContain("- … and 2700 lines more. The stored summary has all of them.");
    expect(markdown).toContain("3000 operations of the engine, too many for a comment");
    const message = "a".repeat(70_000);
    const failed = JSON.stringify({ diagnostics: Array(20).fill({ severity: "error", message }) });
    expect(renderMarkdown(summarize(readPreview(failed))).length).toBeLessThan(65_536);
  });

  test("many hosts push nothing out that concerns security", () => {
    const hosts = Array.from({ length: 1_000 }, (_, at) => ({
      name: `host-${at}`,
      address: `192.0.2.${at}`,
      hostKey: `ssh-ed25519 ${"A".repeat(68)}`,
    }));
    const pod = (privileged: boolean) => ({ spec: { template: { spec: { hostNetwork: privileged } } } });
    const markdown = renderMarkdown(
      summaryOf(
        { op: "create", type: "contrast-runtime:index:BareMetalNodes", name: "hosts", after: { hosts } },
        { op: "update", type: "kubernetes:apps/v1:DaemonSet", name: "d", before: pod(false), after: pod(true) },
      ),
    );
    expect(markdown.length).toBeLessThan(65_536);
    expect(markdown).toContain("pod's `hostNetwork` `false` → `true`");
    expect(markdown).toContain("Host `host-0`");
  });
});

describe("the canonical form", () => {
  const steps = [...groupSteps({ runtimes: [go] }, { runtimes: [next] }), launchStep({}, {})];

  test("does not depend on the order of steps", () => {
    expect(canonical(summarize(previewOf(...steps.toReversed())))).toBe(canonical(summarize(previewOf(...steps))));
  });

  test("does not depend on the order of keys, on times or on source positions", () => {
    const { steps: raw } = JSON.parse(document(steps));
    const moved = raw.map((step: { newState?: object }) => ({
      ...step,
      ...(step.newState && {
        newState: Object.fromEntries(
          Object.entries({ ...step.newState, modified: "2026", sourcePosition: "x" }).reverse(),
        ),
      }),
    }));
    const text = JSON.stringify({ duration: 5, steps: moved });
    expect(canonical(summarize(readPreview(text)))).toBe(canonical(summarize(previewOf(...steps))));
  });

  test("holds every input by its digest, and no secret", () => {
    const step = (value: string) => ({
      op: "update",
      type: "command:remote:Command",
      name: "h",
      before: {},
      after: { stdin: "[secret]", create: value },
    });
    const [one, two] = ["a", "b"].map((value) => canonical(summaryOf(step(value))));
    expect(one).not.toBe(two);
    expect(one).toMatch(/"inputs": "[0-9a-f]{64}"/);
  });
});

/** The golden plan of each example as a preview that creates everything. */
function exampleSteps(name: string): DocumentStep[] {
  const plan = parse(readFileSync(`test/golden/${name}.yaml`, "utf8")) as {
    type: string;
    name: string;
    parent?: string;
    inputs: object;
  }[];
  return plan.map(({ type, name: resource, parent, inputs }) => ({
    op: "create",
    type,
    name: resource,
    ...(parent?.includes(":NodeInstaller ") && { parent: parent.split(" ").at(-1) ?? "" }),
    after: inputs,
  }));
}

describe("every example", () => {
  const examples = ["dev", ...readdirSync("examples").flatMap((file) => /^Pulumi\.(.+)\.yaml$/.exec(file)?.[1] ?? [])];
  test.each(examples)("%s is understood, and no secret is told", (name) => {
    const summary = summaryOf(...exampleSteps(name));
    expect(summary.sections.map(({ title }) => title)).toEqual(
      expect.arrayContaining(["Runtimes", "Nodes", "Restarts of containerd", "Security"]),
    );
    expect(linesOf(summary, "Not known here")).toEqual([]);
    const text = renderMarkdown(summary) + canonical(summary);
    expect(text).not.toContain("decrypted");
    expect(text).not.toContain("kubeconfig of");
  });
});
