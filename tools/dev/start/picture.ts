import { runtimeDirectory } from "../../../runtime/spec.ts";
import type { ClusterInfo } from "../../local-cluster/cluster.ts";
import type { Proof } from "./proof.ts";

/** What npm start prints at the end: what there is now, and what to try next. */
export function picture({ stack, cluster, proofs }: { stack: string; cluster: ClusterInfo; proofs: Proof[] }): string {
  const [environment, option] = stack === "dev" ? ["", ""] : [`PULUMI_STACK=${stack} `, ` --stack ${stack}`];
  return [
    "",
    `cluster    ${stack}: a Kubernetes control plane and ${plural(cluster.nodes.length, "node")} on this machine`,
    ...cluster.nodes.map(({ name, address, containerd }) => `  node     ${name}, ${address}, containerd ${containerd}`),
    ...proofs.flatMap(({ handler, pod, node, shim, files, kernels }) => [
      `handler    ${handler}`,
      `  files    ${runtimeDirectory(handler)} on ${node}:`,
      ...files.map(({ path, size }) => `             ${path.padEnd(42)} ${megabytes(size)}`),
      `  pod      ${pod} runs on ${node}`,
      `  shim     process ${shim.pid}: ${shim.program}`,
      ...(kernels ? [`  kernel   ${kernels.guest} in the pod's VM, ${kernels.node} on ${node}`] : []),
    ]),
    "",
    ...[
      [`${environment}npm run status`, "each node's state"],
      [`npm run pulumi -- preview --diff${option}`, "nothing changes"],
      [`npm run pulumi -- stack output${option}`, "handlers and reference values"],
      ["npm stop", "remove the cluster"],
    ].map(([command = "", what], i) => `${i === 0 ? "try next " : "         "}  ${command.padEnd(39)} ${what}`),
  ].join("\n");
}

const plural = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`;
const megabytes = (size: number): string => `${(size / 1e6).toFixed(1)} MB`.padStart(10);
