/**
 * What other Pulumi programs import from `contrast-runtime`. Importing it registers nothing.
 *
 * The package's bin must be on PATH where the engine runs, because the components' commands call it by name: npm scripts
 * and `npx pulumi up` put it there.
 */

export { cdhConfiguration, type Initdata, registryAuthFile } from "../node-installer/measure/initdata.ts";
export type { ReferenceTable } from "../node-installer/measure/verifiers.ts";
export type { LayerRoot } from "../node-installer/measure/workload.ts";
export { type Manifest, manifestSchema } from "../node-installer/runtime/manifest.ts";
export { Refusal } from "../node-installer/runtime/refusal.ts";
export { deriveRuntime } from "../node-installer/runtime/render.ts";
export type { DistributionName, HostRequirements, PlatformName, RuntimeSpec } from "../node-installer/runtime/spec.ts";
export { distributionNames, platformNames } from "../node-installer/runtime/spec.ts";
export { AksCocoNodePool, type AksCocoNodePoolArgs } from "./aks-coco-node-pool.ts";
export { BareMetalNodes, type BareMetalNodesArgs, type HostArgs } from "./bare-metal-nodes.ts";
export { ConfidentialWorkload, type ConfidentialWorkloadArgs } from "./confidential-workload.ts";
export { ContrastRuntime, type ContrastRuntimeArgs, type NodeGroupArgs, type RuntimeArgs } from "./contrast-runtime.ts";
export type { NodeSelectionArgs, TolerationArgs } from "./installer-pod.ts";
export { LocalCluster, type LocalClusterArgs, type LocalClusterNode } from "./local-cluster.ts";
export { type DistributionArgs, NodeInstaller, type NodeInstallerArgs } from "./node-installer.ts";
export { type RuntimeClassArgs, RuntimeClasses, type RuntimeClassesArgs } from "./runtime-classes.ts";
