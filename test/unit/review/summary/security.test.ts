import { describe, expect, test } from "vitest";
import { type DocumentStep, go, groupSteps, image, linesOf, runtime, summaryOf } from "../documents.ts";

describe("security", () => {
  const daemonSet = (spec: object) => ({ spec: { template: { spec } } });
  const container = { name: "installer", image: image("a"), securityContext: { privileged: false } };
  const updated = (before: object, after: object): DocumentStep => ({
    op: "update",
    type: "kubernetes:apps/v1:DaemonSet",
    name: "installer",
    before: daemonSet(before),
    after: daemonSet(after),
  });

  test("another image of the installer, under its digests", () => {
    const summary = summaryOf(...groupSteps({ runtimes: [go] }, { runtimes: [go], image: image("b") }));
    expect(linesOf(summary, "Security")).toEqual([
      `known: Group \`workers\`: the installer, which is root on its nodes, is \`${image("a")}\` → \`${image("b")}\`.`,
    ]);
    expect(linesOf(summary, "Restarts of containerd")).toEqual([
      "predicted: Group `workers`: installers restart with the new image; containerd does not.",
    ]);
  });

  test("an image that only the update will know", () => {
    const pending = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";
    const summary = summaryOf(...groupSteps(undefined, { runtimes: [go], image: pending }));
    expect(linesOf(summary, "Security")).toEqual([
      "unknown: Group `workers`: the installer, which is root on its nodes, is `not known yet`.",
    ]);
  });

  test("privileges, whatever part of the pod gives them", () => {
    const before = {
      containers: [container],
      hostNetwork: false,
      volumes: [{ name: "host", hostPath: { path: "/opt" } }],
    };
    const after = {
      containers: [{ ...container, securityContext: { privileged: true, capabilities: { add: ["SYS_ADMIN"] } } }],
      hostNetwork: true,
      volumes: [{ name: "host", hostPath: { path: "/" } }],
    };
    expect(linesOf(summaryOf(updated(before, after)), "Security")).toEqual([
      'known: DaemonSet `installer`: pod\'s `containers[0].securityContext.capabilities` `nothing` → `{"add":["SYS_ADMIN"]}`.',
      "known: DaemonSet `installer`: pod's `containers[0].securityContext.privileged` `false` → `true`.",
      "known: DaemonSet `installer`: pod's `hostNetwork` `false` → `true`.",
      "known: DaemonSet `installer`: pod's `volumes[0].hostPath.path` `/opt` → `/`.",
    ]);
  });

  test("what a new pod runs besides its command, and what a new namespace admits", () => {
    const hooks = {
      livenessProbe: { exec: { command: ["sh", "-c", "probe"] } },
      lifecycle: { postStart: { exec: { command: ["sh", "-c", "hook"] } } },
    };
    const pods: DocumentStep = {
      op: "create",
      type: "kubernetes:apps/v1:DaemonSet",
      name: "installer",
      after: daemonSet({ containers: [{ ...container, ...hooks }] }),
    };
    const labels = { "pod-security.kubernetes.io/enforce": "privileged" };
    const namespace = {
      op: "create",
      type: "kubernetes:core/v1:Namespace",
      name: "n",
      after: { metadata: { labels } },
    };
    const lines = linesOf(summaryOf(pods, namespace), "Security");
    for (const [command, path] of [
      ["probe", "livenessProbe.exec.command"],
      ["hook", "lifecycle.postStart.exec.command"],
    ])
      expect(lines).toContain(
        `known: DaemonSet \`installer\`: container \`installer\` also runs \`["sh","-c","${command}"]\` (\`${path}\`).`,
      );
    expect(lines).toContain(
      'known: Namespace `n`: `metadata.labels["pod-security.kubernetes.io/enforce"]` `nothing` → `privileged`.',
    );
  });

  test("the privileges of a new pod are those of all its containers", () => {
    const snapshotter = {
      ...{ name: "snapshotter", image: image("b"), command: ["/bin/s"], args: ["-v"] },
      securityContext: { privileged: true },
    };
    const spec = { containers: [{ ...container, securityContext: { capabilities: { add: ["CHOWN"] } } }, snapshotter] };
    const step = { op: "create", type: "kubernetes:apps/v1:DaemonSet", name: "installer", after: daemonSet(spec) };
    expect(linesOf(summaryOf(step), "Security")).toEqual([
      "known: DaemonSet `installer` is new; its pods have: `installer: not privileged`; `installer: capabilities CHOWN`; " +
        "`snapshotter: privileged`; `snapshotter: capabilities the runtime's own`.",
      `known: DaemonSet \`installer\`: container \`installer\` is \`${image("a")}\` and runs what the image says.`,
      `known: DaemonSet \`installer\`: container \`snapshotter\` is \`${image("b")}\` and runs \`["/bin/s"]\` with \`["-v"]\`.`,
    ]);
  });

  test("tolerations that come and go, and variables", () => {
    const before = {
      containers: [{ ...container, env: [{ name: "A", value: "hush" }] }],
      tolerations: [{ key: "old" }],
    };
    const after = {
      containers: [{ ...container, env: [{ name: "A", value: "hush-hush" }] }],
      tolerations: [{ operator: "Exists" }],
    };
    const lines = linesOf(summaryOf(updated(before, after)), "Security");
    expect(lines).toEqual([
      'known: DaemonSet `installer` tolerates `{"operator":"Exists"}`.',
      'known: DaemonSet `installer` no longer tolerates `{"key":"old"}`.',
      "known: DaemonSet `installer`: pod's `containers[0].env[0].value` `hush` → `hush-hush`.",
    ]);
  });

  test("what a refreshed state leaves out because it is false or empty is no change", () => {
    expect(
      linesOf(
        summaryOf(
          updated({ containers: [container] }, { containers: [container], hostIPC: false, imagePullSecrets: [] }),
        ),
        "Security",
      ),
    ).toEqual([]);
  });

  test("rights that are given and taken", () => {
    const role = (...verbs: string[]) => ({
      rules: verbs.map((verb) => ({ apiGroups: [""], resources: ["nodes"], verbs: [verb] })),
    });
    const step = { op: "update", type: "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole", name: "installer" };
    expect(
      linesOf(summaryOf({ ...step, before: role("patch", "get"), after: role("patch", "delete") }), "Security"),
    ).toEqual([
      "known: ClusterRole `installer` allows: `delete nodes`.",
      "known: ClusterRole `installer` no longer allows: `get nodes`.",
    ]);
    const leases = (...resourceNames: string[]) => ({
      rules: [{ apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["get", "patch"], resourceNames }],
    });
    expect(
      linesOf(summaryOf({ ...step, before: leases("t-0"), after: leases("t-0", "t-1", "t-2") }), "Security"),
    ).toEqual(["known: ClusterRole `installer` allows: `get, patch leases of coordination.k8s.io named t-1, t-2`."]);
    const url = { rules: [{ nonResourceURLs: ["/metrics"], verbs: ["get"] }] };
    expect(linesOf(summaryOf({ ...step, before: role(), after: url }), "Security")).toEqual([
      "known: ClusterRole `installer` allows: `get /metrics`.",
    ]);
  });

  test("an admission policy that is weakened or goes", () => {
    const type = "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicy";
    const lines = linesOf(
      summaryOf(
        {
          op: "update",
          type,
          name: "a",
          before: { spec: { failurePolicy: "Fail" } },
          after: { spec: { failurePolicy: "Ignore" } },
        },
        { op: "delete", type, name: "b", before: {} },
      ),
      "Security",
    );
    expect(lines).toEqual([
      "known: ValidatingAdmissionPolicy `a` lets everything through when it fails.",
      "known: ValidatingAdmissionPolicy `a`: `spec.failurePolicy` `Fail` → `Ignore`.",
      "known: ValidatingAdmissionPolicy `b`, which limits what installers may do, is removed.",
    ]);
  });

  test("insecure and experimental platforms", () => {
    const gpu = runtime("contrast-go", "metal-qemu-snp-gpu");
    const local = runtime("local", "local");
    const vm = runtime("kata-go", "metal-qemu-insecure");
    const lines = linesOf(summaryOf(...groupSteps({ runtimes: [] }, { runtimes: [gpu, local, vm] })), "Security");
    expect(lines).toEqual([
      `known: \`${gpu.handler}\` is experimental: nobody has run platform \`metal-qemu-snp-gpu\` on its hardware.`,
      `known: \`${local.handler}\` is insecure: platform \`local\` has no TEE, nothing in its pods is confidential.`,
      `known: \`${vm.handler}\` is insecure: platform \`metal-qemu-insecure\` has no TEE, nothing in its pods is confidential.`,
    ]);
  });

  test("another cluster", () => {
    const step = { op: "replace", type: "pulumi:providers:kubernetes", name: "kubernetes" };
    const [line] = linesOf(
      summaryOf({ ...step, before: { clusterIdentifier: "a" }, after: { clusterIdentifier: "b" } }),
      "Security",
    );
    expect(line).toBe("known: Another cluster: `a` → `b`.");
  });

  test("another cluster's nodes are all installed; manifests reach none", () => {
    const provider = { op: "replace", type: "pulumi:providers:kubernetes", name: "kubernetes" };
    const group = groupSteps({ runtimes: [go], nodes: ["n1"] }, { runtimes: [go], nodes: ["n1"] });
    const moved = summaryOf(...group, {
      ...provider,
      before: { clusterIdentifier: "a" },
      after: { clusterIdentifier: "b" },
    });
    expect(linesOf(moved, "Restarts of containerd")).toEqual([
      "predicted: Group `workers`: containerd restarts at most once on each node, 1 at a time; at most 1 restart on 1 node. Pods keep running.",
    ]);
    expect(linesOf(moved, "Security")[1]).toContain("what is installed on the old one's nodes stays there");
    const written = { ...provider, before: { clusterIdentifier: "a" }, after: { renderYamlToDirectory: "manifests" } };
    expect(linesOf(summaryOf(written), "Security")[0]).toBe(
      "known: Manifests are written to `manifests`, and cluster `a` is no longer reached.",
    );
    const reached = { ...provider, before: { renderYamlToDirectory: "manifests" }, after: { clusterIdentifier: "a" } };
    expect(linesOf(summaryOf(reached), "Security")[0]).toBe(
      "known: Cluster `a` is reached; until now manifests were written to `manifests`.",
    );
  });

  test("other credentials, which are all that differs; another version of the plugin is none", () => {
    const step = { op: "update", type: "pulumi:providers:kubernetes", name: "kubernetes" };
    const state = (version: string) => ({ clusterIdentifier: "a", kubeconfig: "[secret]", version });
    const told = "unknown: Provider `kubernetes` gets different credentials; whether they lead to the same cluster.";
    const version = "known: Provider `kubernetes`: `version` `4.34.2` → `4.35.0`.";
    const security = (after: object, paths: string[]) =>
      linesOf(summaryOf({ ...step, before: state("4.34.2"), after, paths }), "Security");
    expect(security(state("4.34.2"), [])).toEqual([told]);
    expect(security(state("4.35.0"), ["version"])).toEqual([version]);
    expect(security(state("4.35.0"), ["kubeconfig", "version"])).toEqual([version, told]);
  });
});
