/**
 * What other Pulumi programs import from `contrast-runtime`. Importing it registers nothing.
 *
 * The components' commands run the package's bin. Node finds it from the program's directory, as the program finds the
 * package: nothing has to be on PATH but the `node` (22.18 or newer) that runs the program.
 */

export { deriveRuntime } from "../measure/runtime.ts";
export type { ReferenceTable } from "../measure/verifier-formats.ts";
export type { Manifest } from "../runtime/manifest.ts";
export { Refusal } from "../runtime/refusal.ts";
export { cdhConfiguration, registryAuthFile } from "../workload/initdata.ts";
export { AksCocoNodePool, type AksCocoNodePoolArgs } from "./aks-coco-node-pool.ts";
export { WrongArguments } from "./arguments.ts";
export { BareMetalNodes, type BareMetalNodesArgs, type HostAccessArgs, type HostArgs } from "./bare-metal-nodes.ts";
export {
  ConfidentialWorkload,
  type ConfidentialWorkloadArgs,
  type InitdataArgs,
  type InitdataDigest,
  type LayerArgs,
} from "./confidential-workload.ts";
export {
  ContrastRuntime,
  type ContrastRuntimeArgs,
  type InstalledRuntime,
  type NodeGroupArgs,
  type RuntimeArgs,
} from "./contrast-runtime.ts";
export type { DistributionArgs, GroupArgs, TolerationArgs } from "./group.ts";
export type { GuestRegistryArgs, GuestRegistryProxyArgs, RegistryAccessArgs } from "./guest-registry.ts";
export { LocalCluster, type LocalClusterArgs, type LocalClusterNode } from "./local-cluster.ts";
export { type InstallationArgs, NodeInstaller, type NodeInstallerArgs } from "./node-installer.ts";
export { type GuestProxyArgs, type PayloadArgs, readManifest } from "./runtime.ts";
export {
  type OverheadArgs,
  type RuntimeClassArgs,
  RuntimeClasses,
  type RuntimeClassesArgs,
} from "./runtime-classes.ts";
export { DistributionName, InitdataAlgorithm, OnDestroy, PlatformName } from "./words.ts";
