import { expect, test } from "vitest";
import { hypervisorAnnotations, initdataAnnotation, policyAnnotation } from "../../../runtime/annotations.ts";
import { decodeInitdata, parseInitdata, policyDigest } from "../../../workload/initdata.ts";
import type { PodTemplate } from "../../../workload/pod-template.ts";
import { prepareWorkload, type WorkloadOptions } from "../../../workload/template.ts";
import type { GuestFacts } from "../../../workload/traps.ts";

const image = `registry.example/app@sha256:${"a1".repeat(32)}`;
const handler = "contrast-cc-metal-qemu-snp-01234567";
const initdata = { algorithm: "sha256" as const, data: { "policy.rego": "package agent_policy\n" } };
const podAnnotations = [initdataAnnotation, `${hypervisorAnnotations}snp_id_block_Milan`];
const guest: GuestFacts = {
  pullsImages: true,
  registryLogins: "initdata",
  emptyDirs: "encrypted-disk",
  renewsProjected: true,
  podAnnotations,
  mostVcpus: 240,
};
const beyondLimits = { vcpus: 1, memoryMiB: 512 };
const options: WorkloadOptions = { handler, initdata, guest, beyondLimits };
const container = (name: string, cpu: string | number, more: object = {}) => ({
  name,
  image,
  resources: { limits: { cpu, memory: "256Mi" } },
  ...more,
});

test("a template becomes ready for the runtime and keeps everything else", () => {
  const template: PodTemplate = {
    metadata: { labels: { app: "web" }, annotations: { mine: "1" } },
    spec: {
      serviceAccountName: "web",
      containers: [{ name: "web", image, resources: { requests: { cpu: "500m", memory: "1Gi" } } }],
    },
  };
  const before = structuredClone(template);
  const { template: ready, initdata: digests, size, ...rest } = prepareWorkload(template, options);
  expect(template).toEqual(before);
  const limits = { cpu: "500m", memory: "1Gi" };
  expect(ready.spec).toEqual({
    serviceAccountName: "web",
    runtimeClassName: handler,
    containers: [{ name: "web", image, resources: { limits, requests: limits } }],
  });
  expect(ready.metadata).toMatchObject({ labels: { app: "web" }, annotations: { mine: "1" } });
  expect(parseInitdata(decodeInitdata(ready.metadata?.annotations?.[initdataAnnotation] ?? ""))).toEqual(initdata);
  expect(digests.hostData).toBe(digests.digest);
  expect(size).toEqual({ vcpus: 2, memoryMiB: 1536 });
  expect(rest.policyDigest).toBe(policyDigest("package agent_policy\n"));
  // Preparing a prepared template changes nothing.
  expect(prepareWorkload(ready, options).template).toEqual(ready);
});

test("a policy knows the annotations that its pod will have, but for the one that it is in", () => {
  const block = `${hypervisorAnnotations}snp_id_block_Milan`;
  const seen: unknown[] = [];
  prepareWorkload(
    { metadata: { annotations: { mine: "1" } }, spec: { containers: [container("web", "1")] } },
    {
      ...{ ...options, initdata: { ...initdata, data: {} } },
      annotationsFor: (vcpus) => ({ [block]: `for ${vcpus}` }),
      makePolicy: ({ metadata }) => {
        seen.push(metadata?.annotations);
        return "package agent_policy\n";
      },
    },
  );
  expect(seen).toEqual([{ mine: "1", [block]: "for 2" }]);
});

test("annotations that depend on the guest's size: a different value for one is a mistake", () => {
  const sized = { ...options, annotationsFor: (vcpus: number) => ({ [block]: `for ${vcpus}` }) };
  const block = `${hypervisorAnnotations}snp_id_block_Milan`;
  const of = (annotations: Record<string, string>) =>
    prepareWorkload({ metadata: { annotations }, spec: { containers: [container("web", "1")] } }, sized).template;
  expect(of({}).metadata?.annotations).toMatchObject({ [block]: "for 2" });
  expect(of({ [block]: "for 2" })).toEqual(of({}));
  expect(() => of({ [block]: "for 3" })).toThrow(`metadata.annotations["${block}"] is set to something other`);
});

test.each([
  [["1"], [], 2],
  [["100m", "200m", "700m"], [], 2],
  [["1.5"], [], 3],
  [[".5", "1e0"], [], 3],
  [[2, "100u"], [], 4],
  [["500m"], [["3"]], 4],
  [["500m"], [["600m", "Always"], ["1"]], 3],
  [["500m"], [["600m", "Always"]], 3],
])("limits %j and init containers %j make %i vCPUs", (limits, inits, vcpus) => {
  const spec = {
    containers: limits.map((cpu, index) => container(`c${index}`, cpu)),
    initContainers: inits.map(([cpu = "", restartPolicy], index) =>
      container(`i${index}`, cpu, restartPolicy === undefined ? {} : { restartPolicy }),
    ),
  };
  expect(prepareWorkload({ spec }, options).size.vcpus).toBe(vcpus);
});

test("limits are rounded up only after they are added to what the guest has without them", () => {
  const vcpusOf = (cpu: string, vcpus: number) =>
    prepareWorkload(
      { spec: { containers: [container("web", cpu)] } },
      { ...options, beyondLimits: { ...beyondLimits, vcpus } },
    ).size.vcpus;
  expect(["100m", "600m", "601m", "1", "1.5", "1.6", "1.7"].map((cpu) => vcpusOf(cpu, 0.4))).toEqual([
    ...[1, 1, 2, 2, 2, 2, 3],
  ]);
  expect(["1", "1.5"].map((cpu) => vcpusOf(cpu, 2))).toEqual([3, 4]);
});

test("requests and limits are equal by value, not by spelling", () => {
  const limits = { cpu: "500m", memory: "1Gi", "example.com/device": 1 };
  const requests = { cpu: 0.5, memory: "1024Mi", "example.com/device": "1" };
  const { template } = prepareWorkload(
    { spec: { containers: [container("a", 1, { resources: { limits, requests } })] } },
    options,
  );
  expect(template.spec.containers[0]?.resources).toEqual({ limits, requests: limits });
  const other = { limits, requests: { ...requests, memory: "1G" } };
  expect(() => prepareWorkload({ spec: { containers: [container("a", 1, { resources: other })] } }, options)).toThrow(
    "spec.containers[0].resources.requests.memory is 1G, but limits.memory is 1Gi",
  );
});

test("a Kata from before initdata gets the policy by its own annotation, and nothing else", () => {
  const aks = { ...options, guest: { ...guest, podAnnotations: [policyAnnotation], pullsImages: false } };
  const rego = "package agent_policy\n";
  const spec = { containers: [container("web", "1")] };
  const { template, initdata: digests, policyDigest: policy } = prepareWorkload({ spec }, aks);
  expect(template.metadata?.annotations).toEqual({ [policyAnnotation]: Buffer.from(rego).toString("base64") });
  expect(digests).toEqual({ digest: policy, hostData: policy, mrConfigId: `${policy}${"00".repeat(16)}` });
  expect(policy).toBe(policyDigest(rego));
  const more = { algorithm: "sha256" as const, data: { "aa.toml": "" } };
  const old = { metadata: { annotations: { [initdataAnnotation]: "H4sI" } }, spec };
  for (const problem of [
    'initdata.data has no "policy.rego"',
    'initdata.data["aa.toml"] does not reach the guest',
    `metadata.annotations["${initdataAnnotation}"] is "H4sI", but this Kata is older than initdata and takes only a policy: remove it`,
  ])
    expect(() => prepareWorkload(old, { ...aks, initdata: more })).toThrow(problem);
});

test.each([
  ["io.katacontainers.config_path", "/var/lib/kubelet/pods/1/volumes/a.toml"],
  ["io.katacontainers.config.agent.kernel_modules", "evil"],
  ["io.katacontainers.config.runtime.experimental_force_guest_pull", "false"],
  ["io.katacontainers.config.runtime.disable_new_netns", "true"],
  ["io.katacontainers.config.runtime.sandbox_bind_mounts", "/"],
  ["io.katacontainers.config.hypervisor.kernel_params", "agent.debug_console"],
  ["io.katacontainers.config.hypervisor.cc_init_data2", "H4sI"],
  ["io.katacontainers.container.resource.swappiness", "1"],
  ["io.katacontainers.pkg.oci.bundle_path", "/"],
  ["io.katacontainers.", ""],
])("an annotation that is not the runtime's is refused with its value: %s", (key, value) => {
  const template = { metadata: { annotations: { [key]: value } }, spec: { containers: [container("web", "1")] } };
  const problem = `metadata.annotations["${key}"] is ${JSON.stringify(value)}, but containerd hands nothing of io.katacontainers.* to this runtime except ${podAnnotations.join(", ")}: remove it.`;
  for (const each of [options, { ...options, annotationsFor: () => ({}) }])
    expect(() => prepareWorkload(template, each)).toThrow(problem);
  expect(() =>
    prepareWorkload({ ...template, metadata: { annotations: { [key]: "x".repeat(9_999) } } }, options),
  ).toThrow(`is "${"x".repeat(60)}…", but`);
});

test("a policy beside initdata would be another one: it is refused, and so are devices that the platform does not have", () => {
  const spec = { containers: [container("web", "1")] };
  const prepare = (annotations: Record<string, string>, more: object = {}) =>
    prepareWorkload({ metadata: { annotations }, spec }, { ...options, ...more });
  expect(() => prepare({ [policyAnnotation]: "cGFj" })).toThrow(
    `metadata.annotations["${policyAnnotation}"] is "cGFj", but this guest takes its policy from initdata: set initdata.data["policy.rego"].`,
  );
  const gpu = { "cdi.k8s.io/gpu": "nvidia.com/pgpu=0" };
  expect(() => prepare(gpu)).toThrow("the platform has no devices to give to its guests: remove it");
  const onGpu = prepare(gpu, { guest: { ...guest, podAnnotations: ["cdi.k8s.io/*", ...podAnnotations] } });
  expect(onGpu.template.metadata?.annotations).toMatchObject(gpu);
  // Not for the shim at all.
  expect(prepare({ "example.com/io.katacontainers.config_path": "1" }).size.vcpus).toBe(2);
});

test("initdata without a policy is refused, unless that is said by name", () => {
  const spec = { containers: [container("web", "1")] };
  const prepare = (data: Record<string, string>, more: object = {}) =>
    prepareWorkload({ spec }, { ...options, initdata: { ...initdata, data }, ...more });
  expect(() => prepare({})).toThrow(
    /- initdata\.data has no "policy\.rego": the one in the guest's image then decides, .*; or acknowledge "no-policy" if that is wanted\.$/,
  );
  expect(() => prepare({ "aa.toml": "" })).toThrow('initdata.data has no "policy.rego"');
  const without = prepare({}, { acknowledged: ["no-policy"] });
  expect(without).not.toHaveProperty("policyDigest");
  expect(without.acknowledged).toEqual(["no-policy"]);
  for (const empty of ["", " \n"])
    expect(() => prepare({ "policy.rego": empty })).toThrow('initdata.data["policy.rego"] is empty');
  expect(prepare(initdata.data, { acknowledged: ["no-policy"] }).acknowledged).toEqual([]);
  // Where the policy is all that a guest gets, nothing makes up for it.
  const aks = { guest: { ...guest, podAnnotations: [policyAnnotation] }, acknowledged: ["no-policy"] };
  expect(() => prepare({}, aks)).toThrow('initdata.data has no "policy.rego", without which no container may start');
});

test("all mistakes are named with their fields' paths at once", () => {
  const template: PodTemplate = {
    metadata: {
      annotations: {
        [initdataAnnotation]: "H4sI",
        "io.katacontainers.config.hypervisor.default_vcpus": "4",
        "io.katacontainers.config.hypervisor.snp_id_block_Milan": "AA==",
      },
    },
    spec: {
      runtimeClassName: "kata",
      hostNetwork: true,
      resources: { limits: { cpu: "500m" } },
      imagePullSecrets: [{ name: "registry" }],
      containers: [
        container("a", "1", { image: "app:latest" }),
        container("b", "lots", { resources: { limits: { cpu: "lots" }, requests: { cpu: "1" } } }),
        container("c", 0, { resources: { limits: { cpu: 0, memory: "1 GiB" } } }),
      ],
    },
  };
  let message = "";
  try {
    prepareWorkload(template, options);
  } catch (error) {
    message = (error as Error).message;
  }
  for (const part of [
    'spec.runtimeClassName is "kata"',
    "spec.hostNetwork is true",
    "spec.resources.limits.cpu is 500m, but the limits of its containers add up to 1: raise it, or lower theirs",
    'metadata.annotations["io.katacontainers.config.hypervisor.default_vcpus"] is "4", but containerd hands nothing of',
    "spec.imagePullSecrets do not reach the guest",
    'spec.containers[0].image is "app:latest"',
    "spec.containers[1].resources.limits.memory is missing",
    'spec.containers[1].resources.limits.cpu is "lots"',
    "spec.containers[1].resources.requests.cpu is 1, but limits.cpu is lots",
    'spec.containers[2].resources.limits.cpu is "0", expected cores such as 2 or 500m',
    'spec.containers[2].resources.limits.memory is "1 GiB", expected bytes such as 512Mi',
    `metadata.annotations["${initdataAnnotation}"] is set to another document`,
  ]) {
    expect(message).toContain(part);
  }
  expect(message.split("\n")).toHaveLength(13);
});

test.each([
  [{}, "spec is missing"],
  [{ spec: {} }, "spec.containers is missing"],
  [{ spec: { containers: [{ name: 7 }] } }, "spec.containers[0].name is 7, expected string"],
  [
    { spec: { containers: [{ name: "a", resources: { limits: { cpu: [1] } } }] } },
    "spec.containers[0].resources.limits.cpu is [1], expected a quantity such as 1 or 500Mi",
  ],
  ["web", 'the template is "web", expected object'],
])("what is not shaped as a template is refused: %j", (template, problem) => {
  expect(() => prepareWorkload(template, options)).toThrow(
    `The pod template is not fit for ${handler}:\n- ${problem}.`,
  );
});

test("limits of the whole pod take the place of its containers'", () => {
  const bare = { name: "web", image };
  const spec = { resources: { limits: { cpu: "2", memory: "2Gi" } }, containers: [bare, container("log", "500m")] };
  const { template, size } = prepareWorkload({ spec }, options);
  expect(size).toEqual({ vcpus: 3, memoryMiB: 2560 });
  expect(template.spec.resources).toEqual({ limits: spec.resources.limits, requests: spec.resources.limits });
  expect(template.spec.containers[0]).toEqual(bare);
  const half = { resources: { limits: { cpu: "2" } }, containers: [bare] };
  expect(() => prepareWorkload({ spec: half }, options)).toThrow(
    `:\n- spec.containers[0].resources.limits.memory is missing: the limits decide the VM's size, once and for all.`,
  );
  const differs = { ...spec, resources: { ...spec.resources, requests: { cpu: "1" } } };
  expect(() => prepareWorkload({ spec: differs }, options)).toThrow(
    "spec.resources.requests.cpu is 1, but limits.cpu is 2",
  );
});

test("on AKS every image's layers are known by their roots", () => {
  const other = `registry.example/init@sha256:${"b2".repeat(32)}`;
  const spec = { containers: [container("web", "1")], initContainers: [container("init", "1", { image: other })] };
  const layer = (digit: string) => ({ diffId: `sha256:${digit.repeat(64)}`, rootHash: digit.repeat(64) });
  const aks = { ...options, guest: { ...guest, pullsImages: false } };
  const layers = { [image]: [layer("1"), layer("2")], [other]: [layer("3")] };
  expect(prepareWorkload({ spec }, { ...aks, layers }).rootHashes).toEqual({
    init: ["3".repeat(64)],
    web: ["1".repeat(64), "2".repeat(64)],
  });
  expect(prepareWorkload({ spec }, aks).rootHashes).toBeUndefined();
  expect(() => prepareWorkload({ spec }, { ...aks, layers: { [image]: [] } })).toThrow(
    `layers has no root hashes of ${other}, the image of init: compute them with measure layers.`,
  );
});

test("a template may name its class by a further name of the handler, which stays", () => {
  const of = (runtimeClassName: string) =>
    prepareWorkload({ spec: { runtimeClassName, containers: [container("web", "1")] } }, named).template.spec;
  const named = { ...options, classNames: ["contrast-cc-metal-qemu-snp-1a2b3c4d"] };
  expect(of("contrast-cc-metal-qemu-snp-1a2b3c4d").runtimeClassName).toBe("contrast-cc-metal-qemu-snp-1a2b3c4d");
  expect(() => of("other")).toThrow(
    `spec.runtimeClassName is "other", expected "${handler}", "contrast-cc-metal-qemu-snp-1a2b3c4d" or nothing.`,
  );
});
