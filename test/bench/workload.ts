// `workload` on a hundred pods: reading, judging, policies, initdata and writing, without the registry.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { measuredRuntime } from "../../measure/runtime.ts";
import { manifestSchema } from "../../runtime/manifest.ts";
import { packageRoot } from "../../tools/files/project.ts";
import { type KnownImage, prepareManifests, readManifests } from "../../workload/manifests.ts";
import type { Benchmark } from "./measure.ts";

const rounds = 10;
const digest = `sha256:${"a1".repeat(32)}`;
const reference = "registry.example.com/web:1";

const pod = (number: number): string => `apiVersion: apps/v1
kind: Deployment
metadata: { name: web-${number} }
spec:
  selector:
    matchLabels: { app: web-${number} }
  template:
    metadata:
      labels: { app: web-${number} }
    spec:
      automountServiceAccountToken: false
      containers:
        # the program
        - name: web
          image: ${reference}
          env:
            - { name: NUMBER, value: "${number}" }
          resources:
            limits: { cpu: "1", memory: 512Mi }
`;

export function workloadBenchmarks(): Benchmark[] {
  const manifest = manifestSchema.parse(
    JSON.parse(readFileSync(join(packageRoot, "test/fixtures/manifests/fixture-kata-go.json"), "utf8")),
  );
  const runtime = measuredRuntime({ platform: "metal-qemu-snp", manifest });
  const image = { digest, config: { Entrypoint: ["/web"], Env: ["PATH=/bin"] } };
  const known = new Map<string, KnownImage>([[reference, { pinned: `${reference}@${digest}`, image, size: 1 }]]);
  const text = Array.from({ length: 100 }, (_, number) => pod(number)).join("---\n");
  // Of the processor, which others' work on the machine does not lengthen; it is one thread's.
  const times: number[] = [];
  for (let round = 0; round <= rounds; round += 1) {
    const begin = process.cpuUsage();
    const { pods } = prepareManifests(readManifests([{ name: "web.yaml", text }]), runtime, known, {});
    if (pods.length !== 100) throw new Error("a pod is missing");
    // The first round includes compilation.
    const { user, system } = process.cpuUsage(begin);
    if (round > 0) times.push((user + system) / 1000);
  }
  const ours = times.sort((a, b) => a - b)[rounds / 2] ?? Number.NaN;
  return [{ name: "workload: 100 Deployments made ready, without the registry", ours, limit: 2000, ok: ours <= 2000 }];
}
