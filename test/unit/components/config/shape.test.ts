import { describe, expect, test } from "vitest";
import { images, malformed } from "./malformed-cases.ts";
import {
  inPlainEntries,
  missing,
  outOfRange,
  plainSecrets,
  unknownKeys,
  unknownWords,
  wrongTypes,
} from "./shape-cases.ts";
import { expectMistakes, host, kubeconfigCluster, mistakesIn, stack, withGroup } from "./stacks.ts";

describe.each(Object.entries({ unknownKeys, missing, wrongTypes, unknownWords, outOfRange, malformed, images }))(
  "mistakes of single keys: %s",
  (_kind, cases) => {
    test.each(cases)("%s", async (_what, entries, says) => {
      await expectMistakes(entries, says);
    });
  },
);

describe.each(Object.entries({ plainSecrets, inPlainEntries }))(
  "mistakes of single keys where nothing is encrypted: %s",
  (_kind, cases) => {
    test.each(cases)("%s", async (_what, entries, says) => {
      await expectMistakes(entries, says, { secretKeys: [] });
    });
  },
);

describe("a secret is given by its content", () => {
  test("which is not empty", async () => {
    await expectMistakes(withGroup({ nodes: { hosts: [host], ssh: { privateKey: "" }, joinCommand: "" } }), {
      "groups.workers.nodes.ssh.privateKey": "[secret] must not be empty.",
      "groups.workers.nodes.joinCommand": "[secret] must not be empty.",
    });
  });

  test.each([
    ["~/.kube/config", "cluster.kubeconfig: [secret] must be the content of a kubeconfig, not its path."],
    ["../config\n", "cluster.kubeconfig: [secret] must be the content of a kubeconfig, not its path."],
  ])("%j is a kubeconfig's path", async (kubeconfig, message) => {
    expect(await mistakesIn(stack({ cluster: { ...kubeconfigCluster, kubeconfig } }))).toEqual([message]);
  });

  test("a private key's path", async () => {
    await expectMistakes(withGroup({ nodes: { hosts: [host], ssh: { privateKey: "/root/.ssh/id_ed25519\n" } } }), {
      "groups.workers.nodes.ssh.privateKey": "[secret] must be the private key itself, not its path.",
    });
  });
});

test("a local cluster's node twice", async () => {
  await expectMistakes(
    stack({ cluster: { kind: "local", nodes: [{ name: "a" }, { name: "a" }] }, installerImage: undefined }),
    { "cluster.nodes": '[{"name":"a"},{"name":"a"}] must not list a name twice.' },
  );
});

test("every mistake is said at once, with all that is allowed", async () => {
  await expectMistakes(
    stack({
      cluster: { kind: "aks" },
      installerImage: "x:y",
      groups: { w: { distribution: "k3", runtimes: [{ platform: "locl" }], minNodes: 2 } },
    }),
    {
      "cluster.subscriptionId": "is missing. Expected a string.",
      "cluster.resourceGroup": "is missing. Expected a string.",
      "cluster.name": "is missing. Expected a string.",
      installerImage: '"x:y" must be registry',
      "groups.w.distribution.name":
        '"k3" is not allowed. Allowed: containerd, aks, k3s, rke2, k0s, microk8s. Did you mean "k3s"?',
      "groups.w.runtimes[0].platform":
        '"locl" is not allowed. Allowed: aks-clh-snp, metal-qemu-snp, metal-qemu-tdx, metal-qemu-snp-gpu, metal-qemu-tdx-gpu, metal-qemu-insecure, local. Did you mean "local"?',
      "groups.w.runtimes[0].payload": "is missing. Expected the path of a manifest below the project.",
      "groups.w.minNodes":
        "is not a known key. Allowed here: formerly, distribution, nodes, runtimes, atOnce, minimumNodes, ignoreNodes, stallTimeout, tolerations, startupTaint, priorityClass, installerPod, verifySandbox, loadPendingChanges, onDestroy.",
    },
  );
});
