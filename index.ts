import { connectCluster } from "./components/cluster.ts";
import { stackConfiguration } from "./components/config/index.ts";
import { installerImage } from "./components/installer-image.ts";
import { stackRuntime } from "./components/stack-runtime.ts";

const stack = await stackConfiguration();
const cluster = connectCluster(stack.cluster);
const runtime = stackRuntime(stack, cluster, installerImage(stack.image, cluster.registry));

export default {
  /** What pods set as `runtimeClassName`, by node group. */
  handlers: runtime.handlers,
  /** The same with platform, payload and Kata of each. */
  runtimes: runtime.runtimes,
  /** What verifiers will see, by handler: a table by CPU model and vCPU count, or of TDX's registers. */
  referenceValues: runtime.referenceValues,
  /** What upstream's guests are told about registries: for the "cdh.toml" of their initdata. */
  ...(stack.registry.guest && { cdhImage: runtime.cdhImage }),
  // Not where commands use the environment's KUBECONFIG, or no cluster is contacted: the engine warns of undefined outputs.
  ...(cluster.kubeconfig && { kubeconfig: cluster.kubeconfig }),
};
