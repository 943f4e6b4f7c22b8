import { z } from "zod";
import { Refusal } from "../../../runtime/refusal.ts";
import { runtimeDirectory } from "../../../runtime/spec.ts";
import { type ClusterInfo, runOnNode } from "../../local-cluster/cluster.ts";
import { kubectl } from "../../local-cluster/kubectl.ts";
import { clusterLayout } from "../../local-cluster/layout.ts";
import type { Progress } from "../../process/progress.ts";
import { kubernetesPrograms } from "../../programs/pinned.ts";

/** What was found of a pod that runs with a handler: the pod, its node, the shim's process and the files on the node. */
export interface Proof {
  handler: string;
  pod: string;
  node: string;
  shim: { pid: string; program: string };
  files: { path: string; size: number }[];
}

const runtimeClasses = z.object({
  items: z.array(z.object({ metadata: z.object({ name: z.string() }), handler: z.string() })),
});

/** Runs a pod with each of the cluster's handlers and inspects its shim: configuration alone proves nothing. */
export async function runProofPods(stack: string, cluster: ClusterInfo, progress: Progress): Promise<Proof[]> {
  const programs = await kubernetesPrograms(progress);
  const run = async (args: string[], input?: string): Promise<string> => {
    const { code, stdout, stderr } = await kubectl(clusterLayout(stack), programs, args, input);
    if (code === 0) return stdout;
    throw new Refusal("proof-failed", `kubectl ${args.join(" ")} failed: ${stderr.trim()}`);
  };
  const { items } = runtimeClasses.parse(JSON.parse(await run(["get", "runtimeclasses", "-o", "json"])));
  // A handler may have several classes.
  const handlers = [...new Set(items.map(({ handler }) => handler))].filter((handler) =>
    handler.startsWith("contrast-"),
  );
  const proofs: Proof[] = [];
  for (const handler of handlers) {
    progress(`Running a pod with runtimeClassName ${handler} …`);
    const pod = `proof-${handler}`;
    await run(["apply", "-f", "-"], JSON.stringify(proofPod(pod, handler, cluster.images.busybox)));
    await run(["wait", "--for=condition=Ready", `pod/${pod}`, "--timeout=120s"]).catch(async (error: unknown) => {
      const events = await run(["get", "events", "--field-selector", `involvedObject.name=${pod}`]);
      throw new Refusal("proof-failed", `The pod ${pod} did not become ready within 2 minutes.\n${events}`, {
        cause: error,
      });
    });
    const node = await run(["get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"]);
    proofs.push({ handler, pod, node, ...(await look(stack, node, handler)) });
  }
  return proofs;
}

/** A pod as a user would write it. */
const proofPod = (name: string, handler: string, image: string) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name },
  spec: {
    runtimeClassName: handler,
    terminationGracePeriodSeconds: 0,
    containers: [
      { name: "main", image, command: ["sleep", "infinity"], resources: { limits: { cpu: "100m", memory: "32Mi" } } },
    ],
  },
});

async function look(stack: string, node: string, handler: string): Promise<Pick<Proof, "shim" | "files">> {
  const directory = runtimeDirectory(handler);
  const processes = (await runOnNode(stack, node, ["ps", "-eo", "pid=,args="])).stdout
    .split("\n")
    .map((line) => line.trim().split(/\s+/));
  const [pid, program] = processes.find(([, program = ""]) => program.startsWith(`${directory}/`)) ?? [];
  if (pid === undefined || program === undefined)
    throw new Refusal(
      "proof-failed",
      `The pod with runtimeClassName ${handler} runs on ${node}, but no process there was started from ${directory}: another shim serves it.`,
    );
  const list = await runOnNode(stack, node, ["find", directory, "-type", "f", "-printf", "%s %P\\n"]);
  const files = list.stdout
    .trim()
    .split("\n")
    .map((line) => line.split(" "))
    .map(([size, path = ""]) => ({ path, size: Number(size) }))
    .toSorted((one, other) => (one.path < other.path ? -1 : 1));
  return { shim: { pid, program }, files };
}
