import { readFile } from "node:fs/promises";
import * as z from "zod";
import { initdataAnnotation } from "../../../runtime/annotations.ts";
import { platformOf } from "../../../runtime/handler.ts";
import { platforms } from "../../../runtime/platforms.ts";
import { Refusal } from "../../../runtime/refusal.ts";
import { runtimeDirectory } from "../../../runtime/spec.ts";
import { tomlString } from "../../../runtime/toml.ts";
import { encodeInitdata, initdataDocument } from "../../../workload/initdata.ts";
import { authorityFile } from "../../local-cluster/certificates.ts";
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
  /** Of a pod in a VM: the release of the kernel that it sees, and of the node's. */
  kernels?: { guest: string; node: string };
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
    const platform = platformOf(handler);
    const inVm = platform !== undefined && platforms[platform].vmm !== "none";
    const written = inVm ? await vmPod(pod, handler, stack, cluster) : proofPod(pod, handler, cluster.images.busybox);
    await run(["apply", "-f", "-"], JSON.stringify(written));
    // The guest boots, and then pulls the image by itself.
    const minutes = inVm ? 5 : 2;
    await run(["wait", "--for=condition=Ready", `pod/${pod}`, `--timeout=${minutes}m`]).catch(
      async (error: unknown) => {
        const events = await run(["get", "events", "--field-selector", `involvedObject.name=${pod}`]);
        throw new Refusal("proof-failed", `The pod ${pod} did not become ready within ${minutes} minutes.\n${events}`, {
          cause: error,
        });
      },
    );
    const node = await run(["get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"]);
    const inPod = async (file: string) => (await run(["exec", pod, "--", "cat", file])).trim();
    const kernels = inVm ? await compareKernels(pod, inPod, (file) => readOnNode(stack, node, file)) : undefined;
    proofs.push({ handler, pod, node, ...(await look(stack, node, handler)), ...(kernels && { kernels }) });
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

/** The guest takes the image from where it trusts the cluster's own authority: initdata is what tells it. */
async function vmPod(name: string, handler: string, stack: string, cluster: ClusterInfo) {
  const layout = clusterLayout(stack);
  const authority = await readFile(authorityFile(layout), "utf8");
  const pod = proofPod(name, handler, cluster.images.busybox.replace(cluster.registry, layout.guestRegistry));
  return { ...pod, metadata: { ...pod.metadata, annotations: { [initdataAnnotation]: trusting(authority) } } };
}

/** Initdata for a guest without a key broker that pulls from a registry of this authority (PEM). */
function trusting(authority: string): string {
  const cdh = [
    ...["[kbc]", 'name = "offline_fs_kbc"', 'url = ""', ""],
    ...["[image]", `extra_root_certificates = [${tomlString(authority)}]`, ""],
  ];
  return encodeInitdata(initdataDocument({ algorithm: "sha256", data: { "cdh.toml": cdh.join("\n") } }));
}

/**
 * The kernels' releases. Two kernels may be of one release; each boot has an id of its own.
 * @throws Refusal for a pod that runs on its node's kernel
 */
export async function compareKernels(
  pod: string,
  inPod: (file: string) => Promise<string>,
  onNode: (file: string) => Promise<string>,
): Promise<{ guest: string; node: string }> {
  const boot = "/proc/sys/kernel/random/boot_id";
  if ((await inPod(boot)) === (await onNode(boot)))
    throw new Refusal(
      "proof-failed",
      `The pod ${pod} runs on its node's own kernel, and in no VM: its handler's shim is not Kata's.`,
    );
  const release = "/proc/sys/kernel/osrelease";
  return { guest: await inPod(release), node: await onNode(release) };
}

const readOnNode = async (stack: string, node: string, file: string): Promise<string> =>
  (await runOnNode(stack, node, ["cat", file])).stdout.trim();

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
