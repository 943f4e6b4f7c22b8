import * as pulumi from "@pulumi/pulumi";
import * as z from "zod";
import { aksCocoNodePoolCard } from "../runtime/cards.ts";
import { poolSelector } from "../runtime/names.ts";
import { applied, checkArguments, input, type Shape } from "./arguments.ts";
import { azureNative } from "./azure-native.ts";
import { aksClusterName, azureResourceGroup, pool } from "./config/schema.ts";
import { labelInputs } from "./group.ts";

/** Arguments of `AksCocoNodePool`. */
export interface AksCocoNodePoolArgs {
  /** The resource group of the cluster. */
  resourceGroup: pulumi.Input<string>;
  /** Name of an existing AKS cluster. */
  cluster: pulumi.Input<string>;
  /**
   * The pool's name in Azure: at most 12 lower-case letters and digits. Plain, because nodes are found by it.
   *
   * @example "confidential"
   */
  pool: string;
  /**
   * A size that can run SNP guests: Standard_DC*as_cc_v5. Another one replaces the pool.
   *
   * @example "Standard_DC4as_cc_v5"
   */
  vmSize: pulumi.Input<string>;
  /** Number of nodes, 0 to 1000. */
  count: pulumi.Input<number>;
  /**
   * Numbers of availability zones, whose order has no meaning. Others replace the pool.
   *
   * @default Azure's choice
   * @example ["1", "2", "3"]
   */
  zones?: pulumi.Input<pulumi.Input<string>[]> | undefined;
  /**
   * Pods on one node, 10 to 250. Another number replaces the pool.
   *
   * @default Azure's choice
   */
  maxPods?: pulumi.Input<number> | undefined;
  /**
   * Labels that every node has from the moment it joins, besides Azure's own.
   *
   * @default none
   * @example { "example.com/pool": "confidential" }
   */
  labels?: pulumi.Input<Record<string, pulumi.Input<string>>> | undefined;
}

export const aksCocoNodePoolArgs = z.strictObject({
  resourceGroup: input(azureResourceGroup),
  cluster: input(aksClusterName),
  pool: pool.shape.name,
  vmSize: input(pool.shape.vmSize.unwrap()),
  count: input(pool.shape.count.unwrap()),
  zones: input(pool.shape.zones.unwrap()).optional(),
  maxPods: input(pool.shape.maxPods.unwrap()).optional(),
  labels: labelInputs.optional(),
} satisfies Shape<AksCocoNodePoolArgs>);

/**
 * A node pool for confidential containers in an existing AKS cluster. Microsoft retired the service behind it
 * (KataCcIsolation) and its node images in March 2026: Azure most likely no longer creates or scales such pools. The value
 * is in none of the enumerations of Azure's API, so it is passed as plain text.
 */
export class AksCocoNodePool extends pulumi.ComponentResource {
  /** Labels by which the pool's nodes are selected. */
  readonly nodeSelector: pulumi.Output<Record<string, string>>;

  constructor(name: string, args: AksCocoNodePoolArgs, opts?: pulumi.ComponentResourceOptions) {
    const checked = checkArguments(`AksCocoNodePool ${name}`, aksCocoNodePoolArgs, args);
    const { resourceGroup, cluster, pool, vmSize, count, maxPods, labels } = checked;
    // The order of zones has no meaning, but another one would replace the pool.
    const zones = checked.zones && applied(checked.zones, (list) => list.toSorted());
    super(aksCocoNodePoolCard.type, name, aksCocoNodePoolCard.build({ ...checked, ...(zones && { zones }) }), opts);

    const { AgentPool } = azureNative();
    void this.#warnUnlessRegistered(pool);
    new AgentPool(
      name,
      {
        resourceGroupName: resourceGroup,
        resourceName: cluster,
        agentPoolName: pool,
        type: "VirtualMachineScaleSets",
        mode: "User",
        osType: "Linux",
        osSKU: "AzureLinux",
        workloadRuntime: "KataCcIsolation",
        vmSize,
        count,
        ...(zones && { availabilityZones: zones }),
        ...(maxPods !== undefined && { maxPods }),
        ...(labels && { nodeLabels: labels }),
      },
      {
        parent: this,
        // Azure cannot change these on a pool. The provider knows that of vmSize only; for the others, the update would
        // fail halfway instead of announcing a replacement. Both pools have the same name, so the old one is deleted first.
        replaceOnChanges: [
          "agentPoolName",
          "availabilityZones",
          "maxPods",
          "osSKU",
          "osType",
          "type",
          "vmSize",
          "workloadRuntime",
        ],
        deleteBeforeReplace: true,
      },
    );
    this.nodeSelector = pulumi.output(poolSelector(pool));
    this.registerOutputs({ nodeSelector: this.nodeSelector });
  }

  /**
   * The subscription's feature is not a resource here: to Azure, a feature exists even before it is registered, and the
   * provider refuses to create what exists (pulumi-azure-native issue 1722). An existing pool no longer needs the feature.
   */
  async #warnUnlessRegistered(pool: string): Promise<void> {
    const { providerNamespace, featureName } = feature;
    const { getSubscriptionFeatureRegistration } = azureNative();
    const state = await getSubscriptionFeatureRegistration(feature, { parent: this }).then(
      ({ properties }) => properties.state ?? "in no state",
      (error: unknown) => `in an unknown state (${azureReason(error)})`,
    );
    if (state === "Registered") return;
    await pulumi.log.warn(
      `The subscription's feature ${featureName} is ${state}: without it Azure refuses to create the pool ${pool}. Register it ` +
        `once: "az feature register --namespace ${providerNamespace} --name ${featureName}", then "az provider register ` +
        `--namespace ${providerNamespace}".`,
      this,
    );
  }
}

const feature = { providerNamespace: "Microsoft.ContainerService", featureName: "KataCcIsolationPreview" };

/** The resource's id, which stays the same as long as the cluster does. */
export const aksIdentifier = (subscriptionId: string, resourceGroup: string, cluster: string): string =>
  `/subscriptions/${subscriptionId}/resourceGroups/${resourceGroup}/providers/Microsoft.ContainerService/managedClusters/${cluster}`;

/** Content of the cluster's kubeconfig, a secret. */
export function aksKubeconfig(
  { resourceGroup, cluster, credentials }: { resourceGroup: string; cluster: string; credentials: string },
  opts: pulumi.InvokeOptions,
): pulumi.Output<string> {
  const args = { resourceGroupName: resourceGroup, resourceName: cluster };
  const { listManagedClusterAdminCredentials, listManagedClusterUserCredentials } = azureNative();
  const list = credentials === "admin" ? listManagedClusterAdminCredentials : listManagedClusterUserCredentials;
  const role = `Azure Kubernetes Service Cluster ${credentials === "admin" ? "Admin" : "User"} Role`;
  const refusal = (reason: string) =>
    new pulumi.RunError(
      `Azure returned no ${credentials} kubeconfig for the cluster ${cluster} in the resource group ${resourceGroup}: ${reason} ` +
        'Log in with "az login", or set ARM_CLIENT_ID, ARM_CLIENT_SECRET and ARM_TENANT_ID (or ARM_USE_OIDC); the identity ' +
        `needs the role "${role}" on the cluster.`,
    );
  const content = list(args, opts).then(
    ({ kubeconfigs: [first] }) => {
      if (!first) throw refusal("the list is empty.");
      return Buffer.from(first.value, "base64").toString("utf8");
    },
    (error: unknown) => {
      throw refusal(azureReason(error));
    },
  );
  return pulumi.secret(content);
}

/** What Azure or its plugin said, as a sentence, without the engine's preface and any further lines. */
function azureReason(error: unknown): string {
  const [line = ""] = (error instanceof Error ? error.message : String(error)).trim().split("\n");
  return `${line.replace(/^.*?returned an error: /, "").replace(/\.$/, "")}.`;
}
