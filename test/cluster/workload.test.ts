import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse } from "yaml";
import { initdataAnnotation } from "../../runtime/annotations.ts";
import { packageRoot } from "../../tools/files/project.ts";
import { buildPrograms } from "../../tools/image/bundle.ts";
import { decodeInitdata, initdataDigest, parseInitdata, policyDigest } from "../../workload/initdata.ts";
import { shownWords } from "../shown-commands.ts";
import { useCluster } from "./harness.ts";
import { NodeWithInstaller } from "./installer-on-node.ts";
import { type SmallPayload, smallPayload, specOf } from "./small-payloads.ts";

/**
 * A manifest on its way to a pod: `workload` with an image of the cluster's own registry, `kubectl apply`, and a pod of the
 * platform `local`, in which no guest enforces the policy that is made for it.
 */
const cluster = useCluster("workload", [{ name: "node-1" }]);
let directory: string;
let payload: SmallPayload;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "workload-"));
  payload = await smallPayload(directory, "one");
  await writeFile(join(directory, "manifest.json"), JSON.stringify(payload.manifest));
  const { nodeInstaller } = await buildPrograms();
  const node = new NodeWithInstaller(cluster(), "node-1");
  await node.prepare([nodeInstaller], [payload]);
  const { code, stderr } = await node.installer("install", specOf("workers", [payload.runtime]));
  expect(code, stderr).toBe(0);
  const { handler } = payload.runtime;
  await cluster().apply({ apiVersion: "node.k8s.io/v1", kind: "RuntimeClass", metadata: { name: handler }, handler });
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const workload = (...words: string[]) =>
  cluster().inNetwork(
    ...[process.execPath, join(packageRoot, "tools/cli/main.ts"), "workload", ...words],
    ...["--platform", "local", "--payload", join(directory, "manifest.json")],
    ...["--plain-http", cluster().registry],
  );

test("the example becomes a pod that runs, with the policy and the digests that verifiers are told", async () => {
  const example = await readFile(join(packageRoot, "examples/workloads/web.yaml"), "utf8");
  const given = join(directory, "web.yaml");
  // The cluster has no such image, but one that can serve a page.
  const served = example
    .replace(/image: \S+.*/, `image: ${cluster().images.busybox}\n          command: [httpd, -f, -p, "8080", -h, /bin]`)
    .replace("path: /,", "path: /busybox,")
    // The node is as large as this machine.
    .replace("replicas: 2", "replicas: 1")
    .replace('cpu: "1"', "cpu: 100m")
    .replaceAll("namespace: shop", "namespace: default");
  await writeFile(given, served);
  const ready = join(directory, "ready.yaml");
  await writeFile(ready, await workload(given));
  const [row] = JSON.parse(await workload(ready, "--json"));

  await cluster().kubectl(...shownWords("docs/workloads.md", "kubectl apply -f", { "ready.yaml": ready }));
  await cluster().kubectl("rollout", "status", "deployment/web", "--timeout=180s");
  const { items } = await cluster().get<{
    items: { metadata: { annotations: Record<string, string> }; spec: object }[];
  }>("pods", "--selector=app=web");
  expect(items).toHaveLength(1);
  for (const { metadata, spec } of items) {
    expect(spec).toMatchObject({ runtimeClassName: payload.runtime.handler });
    const document = decodeInitdata(metadata.annotations[initdataAnnotation] ?? "");
    expect(initdataDigest(document).digest.toString("hex")).toBe(row.initdata.digest);
    expect(policyDigest(parseInitdata(document).data["policy.rego"] ?? "")).toBe(row.policyDigest);
  }
  const { spec } = parse((await readFile(ready, "utf8")).split("---\n")[0] ?? "");
  expect(spec.template.spec.containers[0].resources.requests).toEqual({ cpu: "100m", memory: "512Mi" });
});
