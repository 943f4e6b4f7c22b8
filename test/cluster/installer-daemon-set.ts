import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { installerPod } from "../../components/config/installer-pod-schema.ts";
import { podTemplate } from "../../components/installer-pod.ts";
import { installerIdentity } from "../../components/manifests/identity.ts";
import { type PublishedStatus, parseStatus } from "../../node-installer/kubernetes/status.ts";
import { type Lease, ticketReasonAnnotation } from "../../node-installer/kubernetes/tickets.ts";
import {
  installerLabels,
  installerName,
  systemNamespace as namespace,
  specHash,
  specKey,
  statusAnnotation,
  ticketNames,
} from "../../runtime/names.ts";
import type { InstallSpec } from "../../runtime/spec.ts";
import { buildImage } from "../../tools/image/build.ts";
import { buildPrograms } from "../../tools/image/bundle.ts";
import { enterNetwork } from "../../tools/local-cluster/layout.ts";
import { type RunResult, run } from "../../tools/process/run.ts";
import { type TestCluster, until } from "./harness.ts";
import type { SmallPayload } from "./small-payloads.ts";

/** Builds the image with the payloads, pushes it to the cluster's registry and returns its reference. */
export async function pushInstaller(cluster: TestCluster, payloads: SmallPayload[]): Promise<string> {
  const { nodeInstaller } = await buildPrograms();
  const directory = await mkdtemp(join(tmpdir(), "installer-image-"));
  // In a directory of its own, because a list of the layers is kept beside the image.
  const layout = join(directory, "image");
  try {
    await buildImage({ layoutDir: layout, program: nodeInstaller, payloads });
    const push = ["image", "push", "--layout", layout, "--registry", `http://${cluster.registry}`];
    const words = [process.execPath, "tools/cli/main.ts", ...push, "--repository", "installer"];
    return (await cluster.inNetwork(...words)).trim();
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** The program's objects for a node group, applied without the engine, so that a test can observe a failing rollout. */
export class InstallerDaemonSet {
  readonly group: string;
  private readonly cluster: TestCluster;
  private readonly image: string;
  private readonly nodeNames: string[];
  private spec = "";

  constructor(cluster: TestCluster, options: { group: string; image: string; nodeNames: string[] }) {
    this.cluster = cluster;
    this.group = options.group;
    this.image = options.image;
    this.nodeNames = options.nodeNames;
  }

  /** Installs or updates the group without waiting. */
  async apply(spec: string): Promise<void> {
    this.spec = spec;
    const { group, image, nodeNames } = this;
    const name = installerName(group);
    const specName = `${name}-${specHash(spec).slice(0, 8)}`;
    const { startupTaint } = JSON.parse(spec) as InstallSpec;
    const { policies, policyBindings, ...identity } = installerIdentity({ namespace, group, atOnce: 1, startupTaint });
    const template = podTemplate({
      group,
      image,
      specName,
      spec: JSON.parse(spec) as InstallSpec,
      tolerations: [],
      priorityClass: "system-node-critical",
      installerPod: installerPod.parse({}),
      nodeNames,
    });
    await this.cluster.apply(
      { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } },
      ...Object.values(identity),
      ...policies,
      ...policyBindings,
      { apiVersion: "v1", kind: "ConfigMap", metadata: { name: specName, namespace }, data: { [specKey]: spec } },
      {
        apiVersion: "apps/v1",
        kind: "DaemonSet",
        metadata: { name, namespace, labels: installerLabels(group) },
        spec: {
          selector: { matchLabels: { "app.kubernetes.io/name": name } },
          updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: "100%" } },
          template,
        },
      },
    );
  }

  /** The command with which a stack's update waits; it asks nodes that failed before for another attempt. */
  async rollout(): Promise<RunResult> {
    const { cluster, group, spec } = this;
    const words = ["rollout", "--group", group, "--spec-hash", specHash(spec), "--stall-timeout", "300"];
    const [command = "", ...args] = [...enterNetwork(cluster.name), process.execPath, "tools/cli/main.ts", ...words];
    return run(command, args, { env: { ...process.env, KUBECONFIG_CONTENT: cluster.kubeconfig } });
  }

  /** What a node's installer reports about the spec that was applied last; `undefined` until it does. */
  async status(node: string): Promise<PublishedStatus | undefined> {
    interface Annotated {
      metadata: { annotations?: Record<string, string> };
    }
    const { metadata } = await this.cluster.get<Annotated>("node", node);
    const status = parseStatus(metadata.annotations?.[statusAnnotation(this.group)]);
    return status?.specHash === specHash(this.spec) ? status : undefined;
  }

  /** Waits until one of the group's nodes has failed; returns the node and its report. */
  failedNode(timeoutMs = 120_000): Promise<{ node: string; status: PublishedStatus }> {
    return until(
      `a node of ${this.group} fails`,
      async () => {
        for (const node of this.nodeNames) {
          const status = await this.status(node);
          if (status?.state === "failed") return { node, status };
        }
        return undefined;
      },
      timeoutMs,
    );
  }

  /** The holder of the group's only ticket, and why it keeps it. */
  async ticket(): Promise<{ holder: string | undefined; reason: string | undefined } | undefined> {
    const [name = ""] = ticketNames(this.group, 1);
    const { code, stdout } = await this.cluster.tryKubectl(["get", "lease", name, "-n", namespace, "-o", "json"]);
    if (code !== 0) return undefined;
    const { spec, metadata } = JSON.parse(stdout) as Lease;
    return { holder: spec?.holderIdentity, reason: metadata.annotations?.[ticketReasonAnnotation] };
  }
}
