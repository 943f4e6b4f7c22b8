import { describe, expect, test } from "vitest";
import { Refusal } from "../../../runtime/refusal.ts";
import { type PolicyInput, podPolicy } from "../../../workload/policy/pod-policy.ts";
import { expand } from "../../../workload/policy/variables.ts";

const digest = `sha256:${"a".repeat(64)}`;
const reference = `registry.example/app@${digest}`;
const resources = { limits: { cpu: "1", memory: "64Mi" }, requests: { cpu: "1", memory: "64Mi" } };

function input(container: object = {}, spec: object = {}, changes: Partial<PolicyInput> = {}): PolicyInput {
  return {
    runtime: { platform: "metal-qemu-snp", flavour: "kata-go", kataVersion: "4.1.0", guestPull: true },
    namespace: "shop",
    owner: { kind: "Deployment", name: "web" },
    template: { spec: { containers: [{ name: "web", image: reference, resources, ...container }], ...spec } },
    images: { [reference]: { digest, config: { Entrypoint: ["/app"] } } },
    ...changes,
  };
}

/** The data below the rules. */
function dataOf(policy: PolicyInput) {
  const { rego } = podPolicy(policy);
  return JSON.parse(rego.slice(rego.indexOf("\npod := ") + "\npod := ".length));
}

function refusal(policy: PolicyInput): string {
  try {
    podPolicy(policy);
  } catch (error) {
    if (error instanceof Refusal) return error.message;
    throw error;
  }
  return "none";
}

describe("the policy of a pod", () => {
  test("is the same bytes for the same input, in whatever order its members are", () => {
    const security = { runAsUser: 5, fsGroup: 7 };
    const one = input({ env: [{ name: "A", value: "1" }], command: ["/x"] }, { securityContext: security });
    const other = input(
      { command: ["/x"], env: [{ value: "1", name: "A" }] },
      { securityContext: { fsGroup: 7, runAsUser: 5 } },
    );
    expect(podPolicy(one).rego).toBe(podPolicy(other).rego);
  });

  test("says what the host may still choose", () => {
    expect(podPolicy(input()).unpinned.length).toBeGreaterThan(3);
  });

  test.each([
    ["kata-go", "3.32.0", true],
    ["kata-go", "4.2.0", true],
    ["kata-rs", "3.32.0", true],
    ["kata-rs", "4.1.1", true],
    ["contrast-go", "3.32.0", true],
    ["contrast-go", "4.1.0", true],
    ["none", "4.1.0", true],
    ["kata-go", "4.1.0", false],
  ] as const)("is not made for %s %s (guest pull: %s)", (flavour, kataVersion, guestPull) => {
    const runtime = { platform: "metal-qemu-snp" as const, flavour, kataVersion, guestPull };
    expect(refusal(input({}, {}, { runtime }))).toMatch(/^No policy is made for .*Give a policy of your own/);
  });

  test.each<[string, object, object, string]>([
    [
      "privileged",
      { securityContext: { privileged: true } },
      {},
      "spec.containers[0].securityContext.privileged is true",
    ],
    [
      "all capabilities",
      { securityContext: { capabilities: { add: ["ALL"] } } },
      {},
      "spec.containers[0].securityContext.capabilities.add has ALL",
    ],
    [
      "a path of the node",
      { volumeMounts: [{ name: "x", mountPath: "/x" }] },
      { volumes: [{ name: "x", hostPath: { path: "/" } }] },
      "spec.containers[0].volumeMounts[0] is a volume of the kind hostPath",
    ],
    [
      "a claim with a file system",
      { volumeMounts: [{ name: "x", mountPath: "/x" }] },
      { volumes: [{ name: "x", persistentVolumeClaim: { claimName: "c" } }] },
      "volumeMode Block as volumeDevices",
    ],
    [
      "a part of an emptyDir",
      { volumeMounts: [{ name: "x", mountPath: "/x", subPath: "y" }] },
      { volumes: [{ name: "x", emptyDir: {} }] },
      "is a part (subPath) of an emptyDir",
    ],
    [
      "a device of a claim that is unknown",
      { volumeDevices: [{ name: "x", devicePath: "/dev/x" }] },
      {},
      "whose volumeMode is not known to be Block",
    ],
    [
      "a Secret that is not given",
      { env: [{ name: "A", valueFrom: { secretKeyRef: { name: "s", key: "k" } } }] },
      {},
      "from the Secret s, which is not given",
    ],
    [
      "a ConfigMap that is not given",
      { envFrom: [{ configMapRef: { name: "c" } }] },
      {},
      "from the ConfigMap c, which is not given",
    ],
    [
      "an unknown field",
      { env: [{ name: "A", valueFrom: { fieldRef: { fieldPath: "status.phase" } } }] },
      {},
      "from status.phase, which is not known here: allow.env",
    ],
    [
      "a GPU on a platform without",
      { resources: { limits: { ...resources.limits, "nvidia.com/pgpu": 1 } } },
      {},
      'resources.limits["nvidia.com/pgpu"] brings devices',
    ],
    ["devices by claims", {}, { resourceClaims: [{ name: "gpu" }] }, "spec.resourceClaims bring devices"],
    ["another image", { image: `registry.example/other@${digest}` }, {}, "whose configuration is not given"],
    ["the cluster's domain", {}, { setHostnameAsFQDN: true }, "makes a host name with the cluster's domain"],
    [
      "a text where a number belongs",
      { securityContext: { runAsUser: "root" } },
      {},
      "spec.containers[0].securityContext.runAsUser is not as Kubernetes has it",
    ],
  ])("is refused for %s, with the field", (_, container, spec, expected) => {
    expect(refusal(input(container, spec))).toContain(expected);
  });

  test("is refused for a user by name, unless the image's /etc/passwd is given", () => {
    const config = { Entrypoint: ["/app"], User: "app:staff" };
    expect(refusal(input({}, {}, { images: { [reference]: { digest, config } } }))).toContain('runs as "app:staff"');
    const files = { passwd: "root:x:0:0::/:\napp:x:10:20::/:", group: "app:x:20:\nlog:x:30:root,app" };
    const data = dataOf(input({}, {}, { images: { [reference]: { digest, config, ...files } } }));
    expect(data.containers.web.process.user).toEqual({ uid: 10, gid: 20, groups: [20, 30] });
  });

  test("is refused for a volume that an image declares, unless the pod mounts something there", () => {
    const config = { Entrypoint: ["/app"], Volumes: { "/var/lib/data/": {} } };
    const given = (volumeMounts: object[]) =>
      input(
        { volumeMounts },
        { volumes: [{ name: "v", emptyDir: {} }] },
        { images: { [reference]: { digest, config } } },
      );
    const expected = "spec.containers[0].volumeMounts has nothing at /var/lib/data/, where the image declares a volume";
    expect(refusal(given([]))).toContain(expected);
    expect(refusal(given([{ name: "v", mountPath: "/var/lib" }]))).toContain(expected);
    expect(refusal(given([{ name: "v", mountPath: "/var/lib/data" }]))).toBe("none");
  });

  test.each([
    ["SIGQUIT", 3],
    ["usr1", 10],
    ["SIGRTMIN+3", 37],
    ["RTMAX-1", 63],
    ["28", 28],
  ])("lets an image be stopped by its own signal %s, which is %i", (StopSignal, expected) => {
    const images = { [reference]: { digest, config: { Entrypoint: ["/app"], StopSignal } } };
    expect(dataOf(input({}, {}, { images })).signals).toContain(expected);
  });

  test("is refused for a signal that is none", () => {
    const images = { [reference]: { digest, config: { Entrypoint: ["/app"], StopSignal: "SIGSTOPPED" } } };
    expect(refusal(input({}, {}, { images }))).toContain('spec.containers[0].lifecycle.stopSignal is "SIGSTOPPED"');
  });

  test("knows which names an object's pods have", () => {
    const names = (kind: PolicyInput["owner"]["kind"], name = "web") =>
      new RegExp(dataOf(input({}, {}, { owner: { kind, name } })).name);
    expect("web-6986fd7b64-cvwfh").toMatch(names("Deployment"));
    expect("web-6986fd7b64-cvwfh-x").not.toMatch(names("Deployment"));
    expect("web2-6986fd7b64-cvwfh").not.toMatch(names("Deployment"));
    expect("web-0").toMatch(names("StatefulSet"));
    expect("web-2-x7k9z").toMatch(names("Job"));
    expect("web-29312345-x7k9z").toMatch(names("CronJob"));
    expect("web").toMatch(names("Pod"));
    expect("a-b").not.toMatch(names("Pod", "a.b"));
    expect(refusal(input({}, {}, { owner: { kind: "Deployment", name: "n".repeat(47) } }))).toContain(
      "has 47 characters",
    );
  });

  const onGpus = (flavour: "kata-go" | "kata-rs", kataVersion = "4.1.0"): Partial<PolicyInput> => ({
    runtime: { platform: "metal-qemu-snp-gpu", flavour, kataVersion, guestPull: true },
  });
  const asking = (devices: object) => ({ resources: { limits: { ...resources.limits, ...devices } } });

  test("has as many GPUs as a container asks for, by whatever name their model has, and switches beside them", () => {
    const wanted = { "nvidia.com/pgpu": "2", "nvidia.com/GH100_H100_PCIE": 1, "nvidia.com/nvswitch": 4 };
    const { containers } = dataOf(input(asking(wanted), {}, onGpus("kata-go")));
    expect(containers.web).toMatchObject({ gpus: 3, keeps_gpus: true, further_devices: 4 });
    expect(containers.sandbox).toMatchObject({ gpus: 0, further_devices: 0 });
    expect(dataOf(input(asking(wanted), {}, onGpus("kata-go", "4.0.0"))).containers.sandbox.further_devices).toBe(7);
    expect(dataOf(input(asking(wanted), {}, onGpus("kata-rs", "4.0.0"))).containers.sandbox.further_devices).toBe(0);
  });

  test("is refused for GPUs with Contrast's Kata", () => {
    const runtime = { ...onGpus("kata-go").runtime, platform: "metal-qemu-snp-gpu", guestPull: true } as const;
    const contrast = { runtime: { ...runtime, flavour: "contrast-go", kataVersion: "4.0.0" } } as const;
    expect(refusal(input(asking({ "nvidia.com/pgpu": 1 }), {}, contrast))).toContain("Contrast's Kata says otherwise");
  });

  test("leaves GPUs of init containers to those that come after them", () => {
    const gpu = asking({ "nvidia.com/pgpu": 1 });
    const pod = (first: object) => ({ initContainers: [{ name: "first", image: reference, ...gpu, ...first }] });
    const { containers } = dataOf(input(gpu, pod({}), onGpus("kata-rs")));
    expect(containers).toMatchObject({ first: { gpus: 1, keeps_gpus: false }, web: { keeps_gpus: true } });
    const sidecar = pod({ restartPolicy: "Always" });
    expect(dataOf(input(gpu, sidecar, onGpus("kata-go"))).containers.first.keeps_gpus).toBe(true);
    expect(refusal(input(gpu, sidecar, onGpus("kata-rs")))).toContain("would give both the same one");
  });

  test("is refused for GPUs that are no number, and for devices that the pod names itself", () => {
    expect(refusal(input(asking({ "nvidia.com/pgpu": "1k" }), {}, onGpus("kata-go")))).toContain(
      'resources.limits["nvidia.com/pgpu"] is "1k", expected how many',
    );
    const named = input(asking({ "nvidia.com/pgpu": 1 }), {}, onGpus("kata-go"));
    const metadata = { annotations: { "cdi.k8s.io/gpu": "nvidia.com/pgpu=0" } };
    expect(refusal({ ...named, template: { ...named.template, metadata } })).toContain(
      'metadata.annotations["cdi.k8s.io/gpu"] names devices of the node',
    );
  });

  test("has an image's reference as it is given and in full", () => {
    const short = `app@${digest}`;
    const data = dataOf(
      input({ image: short }, {}, { images: { [short]: { digest, config: { Entrypoint: ["/app"] } } } }),
    );
    expect(data.containers.web.storages).toEqual([{ image: [short, `docker.io/library/${short}`] }]);
    const tag = "registry.example/app:1";
    expect(refusal(input({ image: tag }, {}, { images: { [tag]: { digest, config: {} } } }))).toContain(
      `expected the digest ${digest} in it`,
    );
  });

  test.each([
    [{ drop: ["ALL"], add: ["NET_BIND_SERVICE"] }, ["CAP_NET_BIND_SERVICE"]],
    [{ drop: ["all"], add: ["CAP_KILL"] }, ["CAP_KILL"]],
    [{ drop: ["SYS_TIME", "ALL"], add: ["SYS_TIME"] }, []],
  ])("has the capabilities that containerd makes of %j", (capabilities, expected) => {
    const data = dataOf(input({ securityContext: { capabilities } }));
    expect(data.containers.web.process.capabilities).toEqual(expected);
  });

  test("lets whoever says so leave a variable open", () => {
    const env = [{ name: "A", valueFrom: { secretKeyRef: { name: "s", key: "k" } } }];
    expect(dataOf(input({ env }, {}, { allow: { env: ["A"] } })).containers.web.process.env.A).toEqual({
      like: "^(?s:.*)$",
    });
  });
});

test.each([
  ["plain", "plain"],
  ["$(A)", "1"],
  ["x$(A)y", "x1y"],
  ["$$(A)", "$(A)"],
  ["$(B)", "$(B)"],
  ["$(A", "$(A"],
  ["$", "$"],
  ["a$b", "a$b"],
  ["$(P).x", { like: "^{pod}\\.x$" }],
  ["$(DB_SERVICE_PORT)", { like: "^([0-9]{1,5}|\\$\\(DB_SERVICE_PORT\\))$" }],
])("kubelet's expansion of %s is %s", (text, expected) => {
  expect(
    expand(
      text,
      new Map<string, string | { like: string }>([
        ["A", "1"],
        ["P", { like: "^{pod}$" }],
      ]),
    ),
  ).toEqual(expected);
});
