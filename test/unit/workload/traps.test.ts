import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../../../tools/files/project.ts";
import type { PodTemplate } from "../../../workload/pod-template.ts";
import { judge, type TrapView, traps } from "../../../workload/traps.ts";

const view = (spec: object, more: Partial<TrapView> = {}, metadata: object = {}): TrapView => ({
  template: { metadata, spec: { containers: [], ...spec } } as PodTemplate,
  namespace: {},
  size: { vcpus: 2, memoryMiB: 1024 },
  guest: {
    ...{ pullsImages: true, registryLogins: "initdata", emptyDirs: "encrypted-disk", renewsProjected: true },
    ...{ podAnnotations: [], mostVcpus: 240 },
  },
  policy: "given",
  hasRegistryLogins: false,
  ...more,
});
const guest = (more: Partial<TrapView["guest"]>): Partial<TrapView> => ({ guest: { ...view({}).guest, ...more } });
const container = (more: object) => ({ containers: [{ name: "a", ...more }] });
const mount = (more: object = {}) => container({ volumeMounts: [{ name: "v", mountPath: "/v", ...more }] });
const volume = (more: object) => ({ volumes: [{ name: "v", ...more }] });
const token = volume({ projected: { sources: [{ secret: {} }, { serviceAccountToken: { path: "t" } }] } });

/** Each trap: a pod that has it, where, in which words; and pods that come close to it and are well. */
const cases: Record<string, { has: [TrapView, field: string, words: string][]; hasNot: TrapView[] }> = {
  "host-namespaces": {
    has: [[view({ hostIPC: true }), "spec.hostIPC", "is true, but a confidential VM shares nothing with its host"]],
    hasNot: [view({ hostNetwork: false })],
  },
  "ephemeral-containers": {
    has: [[view({ ephemeralContainers: [{ name: "d" }] }), "spec.ephemeralContainers", "(so does kubectl debug)"]],
    hasNot: [view({ ephemeralContainers: [] })],
  },
  "host-path": {
    has: [
      [view(volume({ hostPath: { path: "/etc" } })), "spec.volumes[0].hostPath", 'is "/etc": the guest gets a copy'],
    ],
    hasNot: [view(volume({ configMap: { name: "c" } }))],
  },
  "filesystem-claim": {
    has: [
      [
        view({ ...mount(), ...volume({ persistentVolumeClaim: { claimName: "c" } }) }),
        "spec.containers[0].volumeMounts[0]",
        'mounts the claim "v" as a file system: its files are copied into the guest when the container starts, and nothing is ever written back. Use volumeMode: Block and volumeDevices',
      ],
      [view({ ...mount(), ...volume({ ephemeral: {} }) }), "spec.containers[0].volumeMounts[0]", "mounts the claim"],
      // Of a StatefulSet's volumeClaimTemplates.
      [view(mount()), "spec.containers[0].volumeMounts[0]", "mounts the claim"],
    ],
    hasNot: [
      view({ ...mount(), ...volume({ emptyDir: {} }) }),
      view({
        ...container({ volumeDevices: [{ name: "v", devicePath: "/dev/v" }] }),
        ...volume({ persistentVolumeClaim: { claimName: "c" } }),
      }),
    ],
  },
  "sub-path": {
    has: [
      [
        view({ ...mount({ subPath: "a" }), ...volume({ emptyDir: {} }) }),
        "spec.containers[0].volumeMounts[0].subPath",
        'is "a", which Kata does not know: the container gets a copy',
      ],
      [
        view({ ...mount({ subPathExpr: "$(A)" }), ...volume({ emptyDir: {} }) }),
        "spec.containers[0].volumeMounts[0].subPathExpr",
        'is "$(A)"',
      ],
    ],
    hasNot: [view({ ...mount({ subPath: "" }), ...volume({ emptyDir: {} }) })],
  },
  "renewed-token": {
    has: [
      [
        view(token, guest({ renewsProjected: false })),
        "spec.volumes[0].projected.sources[1].serviceAccountToken",
        "is renewed on the node before it expires",
      ],
    ],
    hasNot: [view(token)],
  },
  "small-empty-dir": {
    has: [
      [
        view(volume({ emptyDir: { sizeLimit: "10Mi" } })),
        "spec.volumes[0].emptyDir.sizeLimit",
        "is 10Mi, but the volume",
      ],
    ],
    hasNot: [
      view(volume({ emptyDir: { sizeLimit: "64Mi" } })),
      view(volume({ emptyDir: {} })),
      view(volume({ emptyDir: { medium: "Memory", sizeLimit: "1Mi" } })),
      view(volume({ emptyDir: { sizeLimit: "10Mi" } }), guest({ emptyDirs: "memory" })),
    ],
  },
  "large-empty-dir": {
    has: [
      [
        view(volume({ emptyDir: { medium: "Memory", sizeLimit: "2Gi" } })),
        "spec.volumes[0].emptyDir.sizeLimit",
        "is 2Gi, but the volume is in the guest's memory, which has 1024 MiB",
      ],
      [
        view(volume({ emptyDir: { sizeLimit: "2Gi" } }), guest({ emptyDirs: "memory" })),
        "spec.volumes[0].emptyDir.sizeLimit",
        "is 2Gi",
      ],
    ],
    hasNot: [
      view(volume({ emptyDir: { sizeLimit: "2Gi" } })),
      view(volume({ emptyDir: { medium: "Memory", sizeLimit: "1Gi" } })),
    ],
  },
  privileged: {
    has: [
      [
        view({ initContainers: [{ name: "i", securityContext: { privileged: true } }] }),
        "spec.initContainers[0].securityContext.privileged",
        "is true: nothing holds the container back",
      ],
    ],
    hasNot: [view(container({ securityContext: { privileged: false } }))],
  },
  exec: {
    has: [
      [
        view(container({ startupProbe: { exec: { command: ["a"] } } })),
        "spec.containers[0].startupProbe.exec",
        "Use httpGet, tcpSocket or grpc",
      ],
      [
        view(container({ lifecycle: { preStop: { exec: { command: ["a"] } } } })),
        "spec.containers[0].lifecycle.preStop.exec",
        "Use httpGet;",
      ],
    ],
    hasNot: [view(container({ livenessProbe: { httpGet: { port: 1 } }, lifecycle: {} }))],
  },
  "injected-sidecar": {
    has: [
      [
        view({}, {}, { annotations: { "linkerd.io/inject": "enabled" } }),
        'metadata.annotations["linkerd.io/inject"]',
        'is "enabled": Linkerd would add containers to the pod',
      ],
      [
        view({}, {}, { annotations: { "vault.hashicorp.com/agent-inject": "true" } }),
        'metadata.annotations["vault.hashicorp.com/agent-inject"]',
        "Vault's agent injector would add",
      ],
      [
        view({}, { namespace: { labels: { "istio.io/rev": "stable" } } }),
        'namespace.metadata.labels["istio.io/rev"]',
        'is "stable": Istio would add',
      ],
    ],
    hasNot: [
      view({}, {}, { annotations: { "vault.hashicorp.com/agent-inject": "false" } }),
      view(
        {},
        { namespace: { labels: { "istio-injection": "enabled" } } },
        { labels: { "sidecar.istio.io/inject": "false" } },
      ),
      view(
        {},
        { namespace: { annotations: { "linkerd.io/inject": "enabled" } } },
        { annotations: { "linkerd.io/inject": "disabled" } },
      ),
    ],
  },
  "pull-secret": {
    has: [
      [view({ imagePullSecrets: [{ name: "s" }] }), "spec.imagePullSecrets", 'in the initdata\'s "cdh.toml"'],
      [
        view({ imagePullSecrets: [{ name: "s" }] }, guest({ registryLogins: "node" })),
        "spec.imagePullSecrets",
        "the stack's registry.guest.credentials",
      ],
    ],
    hasNot: [
      view({ imagePullSecrets: [{ name: "s" }] }, { hasRegistryLogins: true }),
      view({ imagePullSecrets: [{ name: "s" }] }, guest({ pullsImages: false })),
    ],
  },
  "no-device": {
    has: [
      [
        view(container({ resources: { limits: { "nvidia.com/pgpu": 1 } } })),
        'spec.containers[0].resources.limits["nvidia.com/pgpu"]',
        "asks for a GPU",
      ],
    ],
    hasNot: [
      view(container({ resources: { limits: { "nvidia.com/pgpu": 1 } } }), guest({ podAnnotations: ["cdi.k8s.io/*"] })),
    ],
  },
  "too-many-vcpus": {
    has: [
      [
        view({}, { size: { vcpus: 241, memoryMiB: 1 } }),
        "spec.containers",
        "make a guest with 241 vCPUs, but Kata gives it 240",
      ],
    ],
    hasNot: [view({}, { size: { vcpus: 240, memoryMiB: 1 } })],
  },
  "images-in-memory": {
    has: [[view({}, { imageBytes: 1025 << 20 }), "spec.containers", "have images of 1025 MiB, still compressed"]],
    hasNot: [view({}, { imageBytes: 1024 << 20 }), view({}, { imageBytes: 2 ** 40, ...guest({ pullsImages: false }) })],
  },
  "no-policy": {
    has: [[view({}, { policy: "absent" }), "initdata.data", 'has no "policy.rego"']],
    hasNot: [view({}), view({}, { policy: "required" })],
  },
};

test("each trap has pods that fall into it", () => {
  expect(Object.keys(cases).sort()).toEqual(traps.map(({ name }) => name).sort());
});

test.each(traps.map(({ name, wanted }) => ({ name, wanted })))("$name", ({ name, wanted }) => {
  const { has = [], hasNot = [] } = cases[name] ?? {};
  for (const [pod, field, words] of has) {
    const { problems } = judge(pod, []);
    expect(problems.map((problem) => problem.field)).toEqual([field]);
    expect(problems[0]?.message).toContain(words);
    const hint = `; or acknowledge "${name}" if that is wanted`;
    expect(problems[0]?.message.endsWith(hint)).toBe(wanted);
    expect(judge(pod, [name])).toEqual(wanted ? { problems: [], used: [name] } : { problems, used: [] });
  }
  for (const pod of hasNot) expect(judge(pod, [])).toEqual({ problems: [], used: [] });
});

test("the page has every trap by its name, and says which may be wanted", () => {
  const page = readFileSync(join(packageRoot, "docs/workloads.md"), "utf8");
  for (const { name, wanted } of traps) {
    const row = page.split("\n").find((line) => line.startsWith(`| \`${name}\` |`)) ?? "";
    expect(row, name).not.toBe("");
    expect(row.endsWith("refused in any case |"), name).toBe(!wanted);
  }
});
