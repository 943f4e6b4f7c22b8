import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { launchTable } from "../../../../measure/launch-values.ts";
import { measuredRuntime } from "../../../../measure/runtime.ts";
import { initdataAnnotation } from "../../../../runtime/annotations.ts";
import { type WorkloadCommand, workload } from "../../../../tools/workload/workload.ts";
import { decodeInitdata, initdataDigest, parseInitdata, policyDigest } from "../../../../workload/initdata.ts";
import type { PodReference } from "../../../../workload/manifests.ts";
import { payloadsFor } from "../../../campaigns/kata-payload.ts";
import { type FakeRegistry, fakeRegistry } from "../../../fakes/registry.ts";
import { fixtureHandler, fixtureManifest } from "../../runtime/fixtures.ts";

let registry: FakeRegistry;
let directory: string;
beforeEach(async () => {
  registry = await fakeRegistry();
  directory = mkdtempSync(join(tmpdir(), "workload-"));
  // Nobody's logins.
  process.env.DOCKER_CONFIG = directory;
});
afterEach(async () => {
  await registry.close();
  rmSync(directory, { recursive: true });
  delete process.env.DOCKER_CONFIG;
});

const rego = "package agent_policy\n";
const payload = "test/fixtures/manifests/fixture-contrast-go.json";
const handler = fixtureHandler("contrast-go");

interface Run {
  output: string;
  notes: string[];
}

async function run(text: string, given: Partial<WorkloadCommand> = {}): Promise<Run> {
  const file = join(directory, "initdata.toml");
  writeFileSync(file, `algorithm = "sha256"\nversion = "0.1.0"\n\n[data]\n"policy.rego" = '''\n${rego}'''\n`);
  return await workload(
    {
      ...{ files: ["-"], platform: "metal-qemu-snp", payload, allow: {}, acknowledge: [], json: false, plainHttp: [] },
      initdata: file,
      ...given,
    },
    { stdin: async () => text, progress: () => {}, directory: join(directory, "cache") },
  );
}
const rows = async (text: string, given: Partial<WorkloadCommand> = {}): Promise<PodReference[]> =>
  JSON.parse((await run(text, { ...given, json: true })).output);

const deployment = (image: string, more = "") => `# who looks after it
apiVersion: apps/v1
kind: Deployment # not a StatefulSet
metadata:
  name: web
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels:
        app: web

    spec:
      containers:
      # the program
      - name: web
        image: ${image} # pinned below
        resources:
          limits:
            memory: 512Mi # measured
            cpu: "1"
${more}`;
const service = `apiVersion: v1
kind: Service
metadata:   {name: web}
spec:
    ports:  [ {port: 80} ]   # as it is
`;

test("manifests come back with their pods ready, and with everything else as it was", async () => {
  const digest = registry.push("team/web", "1.0");
  const image = `${registry.host}/team/web:1.0`;
  const given = `${service}---\n${deployment(image)}---\n${service}`;
  const { output } = await run(given);
  expect(output.startsWith(service)).toBe(true);
  expect(output.endsWith(`---\n${service}`)).toBe(true);
  for (const comment of [
    "# who looks after it",
    "# not a StatefulSet",
    "# the program",
    "# pinned below",
    "# measured",
  ])
    expect(output).toContain(comment);
  const [, ready] = parseAllDocuments(output).map((document) => document.toJS());
  const { metadata, spec } = ready.spec.template;
  const size = { memory: "512Mi", cpu: "1" };
  expect(spec).toEqual({
    containers: [{ name: "web", image: `${image}@${digest}`, resources: { limits: size, requests: size } }],
    runtimeClassName: handler,
  });
  const document = decodeInitdata(metadata.annotations[initdataAnnotation]);
  expect(parseInitdata(document).data).toEqual({ "policy.rego": rego });
  // Every line is there in the same order, but for the image's, whose digest is new, and for how lists are indented.
  const lines = deployment(image)
    .split("\n")
    .filter((line) => line !== "" && !line.includes("image:"));
  const found = output.split("\n").map((line) => line.trim());
  expect(lines.map((line) => line.trim()).filter((line) => !found.includes(line))).toEqual([]);
});

test("pods that were ready for an earlier runtime move to the new one", async () => {
  registry.push("web", "1");
  const { output } = await run(deployment(`${registry.host}/web:1`));
  const next = { payload: "test/fixtures/manifests/fixture-contrast-go-next.json" };
  const moved = await run(output, next);
  expect(moved.output).toContain(`runtimeClassName: ${fixtureHandler("contrast-go-next")}\n`);
  expect(moved.output).not.toContain(handler);
  expect(moved.notes).toContain(
    `Deployment web had runtimeClassName ${handler}, and moves to ${fixtureHandler("contrast-go-next")}.`,
  );
  expect(moved.output).toBe((await run(deployment(`${registry.host}/web:1`), next)).output);
});

test("the policy is made of the pod and its image: another image is another one, also in what reports show", async () => {
  const [made] = payloadsFor({ flavour: "kata-go", kataVersion: "4.1.0" });
  const file = join(directory, "payload.json");
  writeFileSync(file, JSON.stringify(made?.manifest));
  const given = { payload: file, initdata: undefined };
  const image = `${registry.host}/web:1`;
  const pod = deployment(image, "      automountServiceAccountToken: false\n");
  registry.push("web", "1", { Cmd: ["/app"], User: "app" });
  const { output, notes } = await run(pod, given);
  expect(notes).toEqual([]);
  const { metadata } = parse(output).spec.template;
  const policy = parseInitdata(decodeInitdata(metadata.annotations[initdataAnnotation])).data["policy.rego"] ?? "";
  expect(policy).toMatch(/^# Made by contrast-runtime workload from the pod\./);
  // Of the image's own users: /etc/passwd and /etc/group say who "app" is.
  expect(policy).toContain('"uid": 101');
  expect(policy).toContain("103");

  const [before] = await rows(output, given);
  expect(before?.policyDigest).toBe(policyDigest(policy));
  registry.push("web", "1", { Cmd: ["/app"], User: "app", Labels: { release: "2" } });
  const [after] = await rows(pod, given);
  expect(after?.images).not.toEqual(before?.images);
  expect(after?.policyDigest).not.toBe(before?.policyDigest);
  expect(after?.initdata.hostData).not.toBe(before?.initdata.hostData);
  const [logs] = await rows(output, { ...given, allow: { logs: true } });
  expect(logs?.policyDigest).not.toBe(before?.policyDigest);
  // An edited output gets the policy of what it says now.
  expect((await run(output, given)).output).toBe(output);
  const [other] = await rows(output.replace("- name: web\n", "- name: web\n          args: [x]\n"), given);
  expect(other?.policyDigest).not.toBe(before?.policyDigest);
});

test("a row for each workload has what verifiers see of its pods", async () => {
  registry.push("web", "1");
  const image = `${registry.host}/web:1`;
  const [row, ...others] = await rows(deployment(image));
  expect(others).toEqual([]);
  const measured = measuredRuntime({ platform: "metal-qemu-snp", manifest: fixtureManifest("contrast-go") });
  const { output } = await run(deployment(image));
  const document = decodeInitdata(parse(output).spec.template.metadata.annotations[initdataAnnotation]);
  const digest = initdataDigest(document).digest.toString("hex");
  expect(row).toMatchObject({
    ...{ file: "standard input", line: 2, kind: "Deployment", namespace: "default", name: "web" },
    ...{ handler, platform: "metal-qemu-snp", vcpus: 2, memoryMiB: 1024, policyDigest: policyDigest(rego) },
    initdata: { digest, hostData: digest },
  });
  const milan = row?.reference?.snp?.["EPYC-Milan"];
  expect(milan).toEqual({ "2": launchTable(measured)?.snp?.["EPYC-Milan"]?.["2"] });
});

const job = (spec: string) => `apiVersion: batch/v1
kind: CronJob
metadata: { name: nightly, namespace: shop }
spec:
  schedule: "0 0 * * *"
  jobTemplate:
    spec:
      template:
        spec: ${spec}
`;

test("every kind that makes pods is found, in lists and in files as kubectl prints them", async () => {
  registry.push("web", "1");
  const container = { name: "a", image: `${registry.host}/web:1`, resources: { limits: { cpu: 1, memory: "1Gi" } } };
  const template = { spec: { containers: [container] } };
  const named = (kind: string, apiVersion: string, spec: object) => ({
    apiVersion,
    kind,
    metadata: { name: kind },
    spec,
  });
  const items = [
    named("Pod", "v1", template.spec),
    ...["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"].map((kind) => named(kind, "apps/v1", { template })),
    named("Job", "batch/v1", { template }),
    named("Service", "v1", {}),
  ];
  const list = JSON.stringify({ apiVersion: "v1", kind: "List", items }, null, 2);
  const file = join(directory, "cron.yaml");
  writeFileSync(file, job(JSON.stringify(template.spec)));
  const found = await rows(list, { files: ["-", file] });
  expect(found.map(({ kind }) => kind)).toEqual([
    ...["Pod", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob"],
  ]);
  expect(found.map(({ vcpus }) => vcpus)).toEqual(found.map(() => 2));
  expect(found.at(-1)).toMatchObject({ file, name: "nightly", namespace: "shop" });
  const { output } = await run(list);
  expect(parse(output).items.at(-1)).toEqual(items.at(-1));
});

test("what stands for several places is written once where it may be, and refused where it may not", async () => {
  registry.push("web", "1");
  const image = `${registry.host}/web:1`;
  const two = (resources: string) => `apiVersion: v1
kind: Pod
metadata: { name: a }
spec:
  containers:
  - { name: a, image: &image ${image}, resources: &size { limits: { cpu: 1, memory: 1Gi } } }
  - { name: b, image: *image, resources: ${resources} }
`;
  const { output } = await run(two("*size"));
  expect(parse(output).spec.containers[1].resources).toEqual(parse(output).spec.containers[0].resources);
  expect((await run(output)).output).toBe(output);
  // The anchor's container needs other requests than the alias' own limits leave it.
  const pods = (second: string) => `apiVersion: v1
kind: List
items:
- { apiVersion: v1, kind: Pod, metadata: { name: a }, spec: &spec { containers: [{ name: a, image: ${image}, resources: { limits: { cpu: 1, memory: 1Gi } } }] } }
- { apiVersion: v1, kind: Pod, metadata: { name: b }, spec: ${second} }
`;
  expect(parse((await run(pods("*spec"))).output).items[1].spec.runtimeClassName).toBe(handler);
  const merged = await run(two("{ <<: *size, limits: { cpu: 2, memory: 1Gi } }"));
  expect(parse(merged.output, { merge: true }).spec.containers[1].resources.requests).toEqual({
    cpu: 2,
    memory: "1Gi",
  });
});

test.each([
  ["a: [1", "standard input:1 is no YAML: "],
  ["- 1\n", "standard input:1 is no Kubernetes object: it is missing, or not of the right type."],
  [
    "kind: Pod\nmetadata: { name: 1 }\n",
    "standard input:1 is no Kubernetes object: apiVersion and metadata.name are missing, or not of the right type.",
  ],
  ["", "There is nothing that makes pods in standard input."],
  [service, "There is nothing that makes pods in standard input."],
  [`${service}---\nkind: Pod\nkind: Pod\n`, "standard input:8 is no YAML: Map keys must be unique."],
  ["a: 1\nb: {{ .Values.image }}\n", "standard input:2 has Helm's template syntax ({{ … }}): render the chart first"],
  ["a: 1\n{{- if .Values.x }}\nb: 1\n{{- end }}\n", "standard input:2 has Helm's template syntax"],
  [
    `apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: { name: a }
spec:
  template:
    spec:
      containers:
      - { name: a, image: a }
`,
    "standard input:7 is a list of containers in a Rollout (argoproj.io/v1alpha1), a kind that is not known here: its pods would run without confidentiality. Known kinds: Pod, Deployment,",
  ],
  [
    deployment("'{{ .Values.image }}'"),
    '- standard input:17: the image "{{ .Values.image }}" has Helm\'s template syntax: render the chart first (helm template).',
  ],
  [deployment("Bad@image"), '- standard input:17: the image "Bad@image" is no image\'s reference: expected'],
])("%j is refused in a sentence, with file and line", async (text, problem) => {
  await expect(run(text)).rejects.toThrow(problem);
});

test("images that do not exist, and registries that refuse, are named with the lines that ask for them", async () => {
  const image = `${registry.host}/team/web:1`;
  const missing = run(`${service}---\n${deployment(image)}`);
  await expect(missing).rejects.toThrow(
    `Images cannot be used:\n- standard input:23: the image "${image}" cannot be read: The registry http://${registry.host} answered 404 to GET /v2/team/web/manifests/1 (MANIFEST_UNKNOWN).`,
  );
  registry.refuse(403);
  await expect(run(deployment(image))).rejects.toThrow(/answered 403 .*\(DENIED: no\)\. Log in \(docker login /);
  await registry.close();
  await expect(run(deployment(image))).rejects.toThrow(`The registry http://${registry.host} cannot be reached: `);
});

test("a directory in the place of a file is named as such", async () => {
  await expect(run("", { files: [directory] })).rejects.toThrow(
    `The manifest ${directory} cannot be read: it is a directory, expected a file.`,
  );
});

test("traps are said with file, line, kind and field, all at once, and acknowledged by name", async () => {
  registry.push("web", "1");
  const image = `${registry.host}/web:1`;
  const traps = `        livenessProbe: { exec: { command: [a] } }
      hostNetwork: true
      volumes:
      - name: host
        hostPath: { path: /etc }
`;
  const given = `${service}---\n${deployment(image, traps)}`;
  await expect(run(given)).rejects.toThrow(
    [
      `These pods are not fit for ${handler}:`,
      "- standard input:29: Deployment web: spec.template.spec.hostNetwork is true, but a confidential VM shares nothing with its host.",
      '- standard input:32: Deployment web: spec.template.spec.volumes[0].hostPath is "/etc": the guest gets a copy of whatever the host puts there, and writes nothing back; or acknowledge "host-path" if that is wanted.',
    ].join("\n"),
  );
  const wanted = given.replace("hostNetwork: true", "hostNetwork: false");
  const { notes } = await run(wanted, { acknowledge: ["exec", "host-path", "sub-path"] });
  expect(notes).toEqual([
    "Deployment web has what was acknowledged: host-path, exec.",
    '"sub-path" is acknowledged, but there is none.',
  ]);
});

test("a namespace that has containers added to its pods is seen where it is among the manifests", async () => {
  registry.push("web", "1");
  const namespace =
    "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: mesh\n  labels: { istio-injection: enabled }\n---\n";
  const given = `${namespace}${deployment(`${registry.host}/web:1`)}`;
  await expect(run(given, { namespace: "mesh" })).rejects.toThrow(
    'namespace.metadata.labels["istio-injection"] is "enabled": Istio would add containers to the pod, which its policy does not have.',
  );
  expect((await run(given)).output).toContain(handler);
});

test("a stack's file says runtime, settings and names of classes, whatever it says about nodes and secrets", async () => {
  registry.push("web", "1");
  const image = `${registry.host}/web:1`;
  const ofStack = async (name: string, more: Partial<WorkloadCommand> = {}) =>
    await rows(deployment(image), {
      ...{ stack: `examples/Pulumi.${name}.yaml`, platform: undefined, payload: undefined },
      ...more,
    });
  const [hosts] = await ofStack("metal-qemu-snp");
  expect(hosts?.handler).toBe(fixtureHandler("kata-go"));
  await expect(ofStack("runtime-settings")).rejects.toThrow(
    /has several such runtimes: choose one of contrast-cc-metal-qemu-snp-\w+, .* by --handler\.$/,
  );
  await expect(ofStack("metal-qemu-snp", { platform: "metal-qemu-tdx" })).rejects.toThrow(
    "has no such runtime: choose",
  );
  const debug = (await ofStack("runtime-settings").catch((error: Error) => error.message)).toString();
  const [wanted = ""] = /contrast-cc-metal-qemu-snp-debug-\w+/.exec(debug) ?? [];
  const [row] = await ofStack("runtime-settings", { handler: wanted });
  expect(row?.handler).toBe(wanted);
});

test("the examples are what they say", async () => {
  const text = (name: string) =>
    readFileSync(`examples/workloads/${name}.yaml`, "utf8").replaceAll(
      /(image: )(registry\.example\.com|docker\.io)/g,
      `$1${registry.host}`,
    );
  for (const [repository, tag] of [
    ["nginxinc/nginx-unprivileged", "1.29-alpine"],
    ["store", "2.4"],
    ["report", "7"],
    ["model", "12"],
  ] as const)
    registry.push(repository, tag);
  const of = async (name: string, platform: "metal-qemu-snp" | "metal-qemu-snp-gpu") =>
    (await rows(text(name), { platform, payload: "test/fixtures/manifests/fixture-kata-go.json" }))[0];
  expect(await of("web", "metal-qemu-snp")).toMatchObject({ kind: "Deployment", namespace: "shop", vcpus: 2 });
  expect(await of("store", "metal-qemu-snp")).toMatchObject({ kind: "StatefulSet", vcpus: 3, memoryMiB: 2560 });
  expect(await of("report", "metal-qemu-snp")).toMatchObject({ kind: "Job", vcpus: 3, memoryMiB: 1536 });
  expect(await of("model", "metal-qemu-snp-gpu")).toMatchObject({ kind: "Pod", vcpus: 9 });
  const own = { initdata: undefined, payload: "test/fixtures/manifests/fixture-kata-go.json" };
  const made = await run(text("model"), { ...own, platform: "metal-qemu-snp-gpu" });
  const policy = parseInitdata(decodeInitdata(parse(made.output).metadata.annotations[initdataAnnotation])).data[
    "policy.rego"
  ];
  expect(policy).toContain('"gpus": 1');
  await expect(of("model", "metal-qemu-snp")).rejects.toThrow("asks for a GPU, but the platform has none");
});
