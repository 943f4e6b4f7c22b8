/**
 * What other Pulumi programs import from `contrast-runtime`. Importing it registers nothing.
 *
 * The package's bin must be on PATH where the engine runs, because the components' commands call it by name: npm scripts
 * and `npx pulumi up` put it there.
 */

export { deriveRuntime } from "../measure/runtime.ts";
export type { ReferenceTable } from "../measure/verifier-formats.ts";
export { type Manifest, manifestSchema } from "../runtime/manifest.ts";
export { Refusal } from "../runtime/refusal.ts";
export type { DistributionName, HostRequirements, PlatformName, RuntimeSpec } from "../runtime/spec.ts";
export { distributionNames, platformNames } from "../runtime/spec.ts";
export { cdhConfiguration, type Initdata, registryAuthFile } from "../workload/initdata.ts";
export type { LayerRoot } from "../workload/template.ts";
export { AksCocoNodePool, type AksCocoNodePoolArgs } from "./aks-coco-node-pool.ts";
export { BareMetalNodes, type BareMetalNodesArgs, type HostArgs } from "./bare-metal-nodes.ts";
export { ConfidentialWorkload, type ConfidentialWorkloadArgs } from "./confidential-workload.ts";
export { ContrastRuntime, type ContrastRuntimeArgs, type NodeGroupArgs, type RuntimeArgs } from "./contrast-runtime.ts";
export type { NodeSelectionArgs, TolerationArgs } from "./installer-pod.ts";
export { LocalCluster, type LocalClusterArgs, type LocalClusterNode } from "./local-cluster.ts";
export { type DistributionArgs, NodeInstaller, type NodeInstallerArgs } from "./node-installer.ts";
export { type RuntimeClassArgs, RuntimeClasses, type RuntimeClassesArgs } from "./runtime-classes.ts";
