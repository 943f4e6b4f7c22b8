/** Small programs with one ContrastRuntime, and what they register. */
import { ContrastRuntime, type NodeGroupArgs } from "../../../components/contrast-runtime.ts";
import type { PlatformName } from "../../../runtime/spec.ts";
import { type Recorded, record } from "../../recorded-program.ts";
import { fixtureAdvisories, fixtureManifest } from "../runtime/fixtures.ts";

export const image = `registry.example.com/contrast-node-installer@sha256:${"a".repeat(64)}`;

export const group = (
  platform: PlatformName,
  fixture: string,
  changes: Partial<NodeGroupArgs> = {},
): NodeGroupArgs => ({
  group: "workers",
  distribution: { name: "containerd" },
  runtimes: [
    { platform, manifest: fixtureManifest(fixture), acknowledgedAdvisories: fixtureAdvisories[fixture] ?? [] },
  ],
  ...changes,
});

export const register = (groups: NodeGroupArgs[], kubeconfig?: string): Promise<Recorded[]> =>
  record(() => new ContrastRuntime("runtime", { image, groups, kubeconfig }));

export const find = (plan: Recorded[], type: string, name = ""): Recorded => {
  const found = plan.find((resource) => resource.type.endsWith(type) && resource.name.includes(name));
  if (!found)
    throw new Error(
      `no ${type} ${name} among ${plan.map((resource) => `${resource.type} ${resource.name}`).join(", ")}`,
    );
  return found;
};

interface PodSpec {
  containers: { name: string; image: string; command?: string[]; resources: { limits?: object } }[];
  volumes: { name: string; hostPath?: object }[];
  affinity?: object;
  nodeSelector: object;
  imagePullSecrets?: object;
}
export const podOf = (plan: Recorded[]): PodSpec =>
  (find(plan, ":DaemonSet").inputs as { spec: { template: { spec: PodSpec } } }).spec.template.spec;
