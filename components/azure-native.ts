import { createRequire } from "node:module";
import { RunError } from "@pulumi/pulumi";

const name = "@pulumi/azure-native";
const modules = [
  "containerservice/agentPool.js",
  "containerservice/listManagedClusterAdminCredentials.js",
  "containerservice/listManagedClusterUserCredentials.js",
  "features/getSubscriptionFeatureRegistration.js",
  "provider.js",
];
type AzureNative = typeof import("@pulumi/azure-native/containerservice/agentPool.js") &
  typeof import("@pulumi/azure-native/containerservice/listManagedClusterAdminCredentials.js") &
  typeof import("@pulumi/azure-native/containerservice/listManagedClusterUserCredentials.js") &
  typeof import("@pulumi/azure-native/features/getSubscriptionFeatureRegistration.js") &
  typeof import("@pulumi/azure-native/provider.js");

const require = createRequire(import.meta.url);

/**
 * The part of Azure's SDK that AKS needs, loaded when it is first used: the package has hundreds of megabytes, so that only
 * those who have AKS install it. Required instead of imported, because components are constructed synchronously.
 *
 * @throws pulumi.RunError if the package is not installed
 */
export function azureNative(): AzureNative {
  try {
    return Object.assign({}, ...modules.map((module) => require(`${name}/${module}`)));
  } catch (error) {
    if (!(error instanceof Error && error.message.startsWith(`Cannot find module '${name}/`))) throw error;
    throw new RunError(
      `AKS needs the npm package ${name}, which is not installed: contrast-runtime leaves it to those who have AKS, because ` +
        `it is large. Install it beside contrast-runtime: npm install ${name}`,
    );
  }
}
