import { beforeAll, describe, expect, test } from "vitest";
import { deriveRuntime } from "../../measure/runtime.ts";
import { editConfiguration } from "../../node-installer/containerd/edit.ts";
import type { HandlerEntry } from "../../node-installer/containerd/entry.ts";
import type { PlatformName } from "../../runtime/spec.ts";
import { fixtureManifest } from "../unit/runtime/fixtures.ts";
import { busyboxPod, until, useCluster } from "./harness.ts";
import { configPath, NodeWithInstaller } from "./installer-on-node.ts";

/**
 * What of a pod's annotations reaches the shim: real API server, kubelet and containerds with the entries that the
 * installer writes. A program in the shim's place keeps the specification that containerd hands to it, and ends.
 */
const generations = { "node-1": "2.4", "node-2": "1.7" } as const;
const cluster = useCluster(
  "annotations",
  Object.entries(generations).map(([name, containerd]) => ({ name, containerd })),
);

/** It is started in the bundle's directory; containerd also asks it for information about itself. */
const recorder = `#!/bin/sh
for word; do [ "$word" != start ] || cp config.json "$0.json"; done
exit 1
`;

const kata = (name: string) => `io.katacontainers.${name}`;
const hypervisor = (name: string) => kata(`config.hypervisor.${name}`);
/** What an author puts on a pod: what the runtimes are for, what would give him the node, and what is containerd's to say. */
const annotations: Record<string, string> = Object.fromEntries(
  [
    hypervisor("cc_init_data"),
    hypervisor("snp_id_block_Milan"),
    kata("config.agent.policy"),
    "cdi.k8s.io/gpu",
    kata("config_path"),
    hypervisor("kernel_params"),
    hypervisor("cc_init_data_path"),
    kata("config.agent.kernel_modules"),
    kata("config.runtime.experimental_force_guest_pull"),
    kata("config.runtime.disable_new_netns"),
    kata("config.runtime.sandbox_bind_mounts"),
    kata("container.resource.swappiness"),
    kata("pkg.oci.bundle_path"),
    kata("pkg.oci.container_type"),
    "io.kubernetes.cri.container-type",
    "io.kubernetes.cri.sandbox-id",
  ].map((name) => [name, "from the pod"]),
);

/** A handler as the installer would write it; a snapshotter, which no node here has, is not asked for. */
function handlerOf(platform: PlatformName, fixture: string): HandlerEntry {
  const { handler, containerd } = deriveRuntime({ platform, manifest: fixtureManifest(fixture) });
  const { snapshotter, proxyPlugin, ...entry } = containerd;
  return { handler, entry };
}
const snp = handlerOf("metal-qemu-snp", "contrast-go");
const cases: { name: string; runtime: HandlerEntry; reach: string[] }[] = [
  {
    name: "Contrast's Kata with SEV-SNP",
    runtime: snp,
    reach: [hypervisor("cc_init_data"), hypervisor("snp_id_block_Milan")],
  },
  {
    name: "upstream Kata with TDX",
    runtime: handlerOf("metal-qemu-tdx", "kata-go"),
    reach: [hypervisor("cc_init_data")],
  },
  { name: "runtime-rs", runtime: handlerOf("metal-qemu-snp", "kata-rs"), reach: [hypervisor("cc_init_data")] },
  {
    name: "a GPU",
    runtime: handlerOf("metal-qemu-tdx-gpu", "kata-go"),
    reach: ["cdi.k8s.io/gpu", hypervisor("cc_init_data")],
  },
  { name: "AKS", runtime: handlerOf("aks-clh-snp", "contrast-aks"), reach: [kata("config.agent.policy")] },
  {
    // The recorder sees what there is to see: with the pattern of others, everything comes.
    name: "a pattern over all of Kata's annotations, which nothing here writes",
    runtime: {
      handler: "contrast-cc-metal-qemu-snp-00000000",
      entry: {
        ...snp.entry,
        runtimePath: "/opt/edgeless/contrast-cc-metal-qemu-snp-00000000/bin/shim",
        podAnnotations: ["io.katacontainers.*"],
      },
    },
    reach: Object.keys(annotations).filter((name) => name.startsWith("io.katacontainers.")),
  },
];
const entries = cases.map(({ runtime }) => runtime);

describe.each(Object.entries(generations))("%s with containerd %s", (name, containerd) => {
  let node: NodeWithInstaller;

  beforeAll(async () => {
    node = new NodeWithInstaller(cluster(), name);
    for (const { entry } of entries) {
      await node.write(entry.runtimePath, recorder);
      await node.run("chmod", "755", entry.runtimePath);
    }
    const before = Buffer.from((await node.read(configPath)) ?? "");
    const context = { file: configPath, kind: "root", containerdVersion: `${containerd}.0` } as const;
    await node.write(configPath, editConfiguration(before, entries, context)?.toString() ?? "");
    await node.run("systemctl", "restart", "containerd.service");
    const handlers = entries.map(({ handler }) => handler).toSorted();
    await until("all handlers are served", async () =>
      (await node.served())?.join() === handlers.join() ? true : undefined,
    );
  });

  test.each(cases)("$name", async ({ runtime: { handler, entry }, reach }) => {
    const pod = busyboxPod(cluster(), `${name}-${handler}`, { nodeName: name, runtimeClassName: handler });
    await cluster().apply(
      { apiVersion: "node.k8s.io/v1", kind: "RuntimeClass", metadata: { name: handler }, handler },
      { ...pod, metadata: { ...pod.metadata, annotations } },
    );
    const spec = await until("containerd starts the shim", () => node.read(`${entry.runtimePath}.json`));
    await cluster().kubectl("delete", "pod", pod.metadata.name, "--wait=false", "--grace-period=0", "--force");
    const seen = (JSON.parse(spec) as { annotations: Record<string, string> }).annotations;
    const ofPods = Object.keys(seen).filter((key) => /^(io\.katacontainers|cdi\.k8s\.io)/.test(key));
    expect(ofPods.toSorted()).toEqual(reach.toSorted());
    for (const key of reach) expect(seen[key]).toBe("from the pod");
    // What the shim needs besides is handed over in any case, and is containerd's own word.
    expect(seen["io.kubernetes.cri.container-type"]).toBe("sandbox");
    expect(seen["io.kubernetes.cri.sandbox-id"]).toMatch(/^[0-9a-f]{64}$/);
    expect(seen["io.kubernetes.cri.sandbox-name"]).toBe(pod.metadata.name);
  });
});
