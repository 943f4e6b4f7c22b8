import { Provider } from "@pulumi/kubernetes/provider.js";
import * as pulumi from "@pulumi/pulumi";
import { localNetworkVariable } from "../runtime/names.ts";
import { aksIdentifier, aksKubeconfig } from "./aks-coco-node-pool.ts";
import { azureNative } from "./azure-native.ts";
import type { ClusterConfiguration } from "./config/schema.ts";
import { LocalCluster } from "./local-cluster.ts";

/** What the rest of the program needs from a cluster of any kind. */
export interface Cluster {
  providers: pulumi.ProviderResource[];
  /** The file's content; absent: the environment's KUBECONFIG. */
  kubeconfig?: pulumi.Output<string>;
  /** host:port of a registry that belongs to the cluster. */
  registry?: pulumi.Output<string>;
  /** Set if the cluster is ours: what is in it is removed with it. */
  owner?: pulumi.Resource;
}

export function connectCluster(configuration: ClusterConfiguration): Cluster {
  switch (configuration.kind) {
    case "local": {
      const name = pulumi.getStack();
      // Outside it, the cluster's addresses are somebody else's.
      if (!pulumi.runtime.isDryRun() && process.env[localNetworkVariable] !== name)
        throw new pulumi.RunError(
          `The cluster of stack ${name} is on this machine, in a network of its own: update it with npm run pulumi -- up ` +
            `--stack ${name}, which makes the cluster and runs the update in its network.`,
        );
      const cluster = new LocalCluster("cluster", {
        name,
        ...(configuration.nodes && { nodes: configuration.nodes }),
      });
      const { kubeconfig, registry } = cluster;
      return { providers: [provider(`local/${name}`, kubeconfig, cluster)], kubeconfig, registry, owner: cluster };
    }
    case "kubeconfig": {
      // With an empty kubeconfig, the provider reads KUBECONFIG from its environment, like kubectl. If it were omitted, the
      // SDK would put that path into the inputs, and another machine's preview would differ.
      if (configuration.kubeconfig === undefined) return { providers: [provider(configuration.name, "")] };
      const kubeconfig = pulumi.secret(configuration.kubeconfig);
      return { providers: [provider(configuration.name, kubeconfig)], kubeconfig };
    }
    case "aks": {
      const { subscriptionId, resourceGroup, name, credentials } = configuration;
      const { Provider: AzureProvider } = azureNative();
      const azure = new AzureProvider("azure", { subscriptionId });
      const kubeconfig = aksKubeconfig({ resourceGroup, cluster: name, credentials }, { provider: azure });
      const kubernetes = provider(aksIdentifier(subscriptionId, resourceGroup, name), kubeconfig);
      return { providers: [kubernetes, azure], kubeconfig };
    }
  }
}

/**
 * The identifier is fixed: credentials may change, and only another cluster replaces what is in it. In a cluster that is
 * ours alone, anything that already exists was made by an update that was killed before it could record it: it is adopted.
 */
const provider = (clusterIdentifier: string, kubeconfig: pulumi.Input<string>, owner?: pulumi.Resource): Provider =>
  new Provider(
    "kubernetes",
    {
      clusterIdentifier,
      kubeconfig,
      ...(owner && { upsertExistingObjects: true, enablePatchForce: true }),
    },
    owner ? { deletedWith: owner } : {},
  );
