/**
 * As much of Azure as an AKS node pool needs: agent pools, a cluster's credentials, and the state of a subscription's
 * features. There is nothing behind it: only the engine remembers what was created.
 */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { inputChanges } from "../changes.ts";
import type { Checked, Provider } from "../plugin.ts";
import { type Properties, revealed } from "../values.ts";
import { agentPoolFailures } from "./agent-pool.ts";

const subscription = "/subscriptions/00000000-0000-0000-0000-000000000000";

interface Kind {
  check(inputs: Properties, name: string): Checked;
  /** Properties whose change replaces: the official plugin's list, which is shorter than Azure's own. */
  replacing: string[];
  id(inputs: Properties): string;
  /** The outputs that Azure adds. */
  outputs(inputs: Properties): Properties;
}

const kinds: Record<string, Kind> = {
  "azure-native:containerservice:AgentPool": {
    check(news, name) {
      const inputs = { ...news, agentPoolName: news.agentPoolName ?? `${name}${randomBytes(4).toString("hex")}` };
      return { inputs, failures: agentPoolFailures(revealed(inputs)) };
    },
    replacing: ["resourceGroupName", "resourceName", "agentPoolName", "vmSize", "gpuInstanceProfile"],
    id: ({ resourceGroupName, resourceName, agentPoolName }) =>
      `${subscription}/resourceGroups/${resourceGroupName}/providers/Microsoft.ContainerService/managedClusters/${resourceName}/agentPools/${agentPoolName}`,
    outputs: ({ agentPoolName, orchestratorVersion }) => ({
      azureApiVersion: "2025-09-01",
      name: agentPoolName ?? null,
      type: "Microsoft.ContainerService/managedClusters/agentPools",
      provisioningState: "Succeeded",
      powerState: { code: "Running" },
      currentOrchestratorVersion: orchestratorVersion ?? null,
      eTag: randomBytes(8).toString("hex"),
    }),
  },
};

function kindOf(type: string): Kind {
  const kind = kinds[type];
  if (!kind) throw new Error(`${type} is not a resource of this stand-in`);
  return kind;
}

const stateOf = (kind: Kind, inputs: Properties): Properties => ({ ...inputs, ...kind.outputs(revealed(inputs)) });

export const azureProvider: Provider = {
  async check({ type, name, news, olds }) {
    const kind = kindOf(type);
    const { agentPoolName } = olds;
    return kind.check({ ...(agentPoolName === undefined ? {} : { agentPoolName }), ...news }, name);
  },

  async diff({ type, inputs, oldInputs }) {
    return { changes: inputChanges(oldInputs, inputs, kindOf(type).replacing) };
  },

  async create({ type, inputs, preview }) {
    const kind = kindOf(type);
    if (preview) return { id: "", state: inputs };
    return { id: kind.id(revealed(inputs)), state: stateOf(kind, inputs) };
  },

  async read({ id, state, inputs }) {
    return { id, state, inputs };
  },

  async update({ type, inputs, preview }) {
    return preview ? inputs : stateOf(kindOf(type), inputs);
  },

  async delete() {},

  /** The cluster's kubeconfig is the one that AZURE_STAND_IN_KUBECONFIG names; every feature is registered. */
  async invoke(token, { resourceName, providerNamespace, featureName }) {
    if (token === "azure-native:features:getSubscriptionFeatureRegistration")
      return {
        azureApiVersion: "2021-07-01",
        id: `${subscription}/providers/Microsoft.Features/featureProviders/${providerNamespace}/subscriptionFeatureRegistrations/${featureName}`,
        name: featureName ?? null,
        type: "Microsoft.Features/featureProviders/subscriptionFeatureRegistrations",
        properties: { state: "Registered" },
      };
    if (!/^azure-native:containerservice:listManagedCluster(User|Admin)Credentials$/.test(token))
      throw new Error(`${token} is not a function of this stand-in`);
    const file = process.env.AZURE_STAND_IN_KUBECONFIG;
    if (!file) throw new Error(`there is no cluster ${resourceName}: AZURE_STAND_IN_KUBECONFIG names no kubeconfig`);
    return { kubeconfigs: [{ name: "clusterUser", value: (await readFile(file)).toString("base64") }] };
  },
};
