import { readdirSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { canonical } from "../../../../review/approval/form.ts";
import { readPreview } from "../../../../review/preview/preview.ts";
import { renderMarkdown } from "../../../../review/summary/markdown.ts";
import { summarize } from "../../../../review/summary/summary.ts";
import {
  bareMetalNodesCard,
  contrastRuntimeCard,
  localClusterCard,
  nodeInstallerCard,
} from "../../../../runtime/cards.ts";
import {
  type DocumentStep,
  document,
  go,
  groupSteps,
  hostCard,
  hostStep,
  linesOf,
  next,
  previewOf,
  runtimeStep,
  summaryOf,
} from "../documents.ts";
import { exampleSteps } from "../examples.ts";

describe("the rest", () => {
  test("commands and objects that are none of ours are not passed over", () => {
    const step = { op: "create", name: "other", after: { create: "curl https://example.com/ | sh" }, foreign: true };
    const summary = summaryOf(
      ...["command:local:Command", "kubernetes:core/v1:ConfigMap"].map((type) => ({ ...step, type })),
    );
    expect(linesOf(summary, "Not explained here")).toEqual([
      "unknown: What the create of `other` (`kubernetes:core/v1:ConfigMap`) does is not explained here.",
    ]);
    expect(linesOf(summary, "Commands")).toEqual([
      "unknown: On the machine of the update, with its credentials, `other` runs (create): `curl https://example.com/ | sh`. " +
        "What this does is not explained here: it is none of this product's.",
    ]);
  });

  test("another subscription, or other credentials of another provider", () => {
    const step = { op: "update", type: "pulumi:providers:azure-native", name: "default" };
    const state = (subscriptionId: string) => ({ subscriptionId, clientSecret: "[secret]" });
    const paths = ["clientSecret", "subscriptionId"];
    expect(linesOf(summaryOf({ ...step, before: state("a"), after: state("b"), paths }), "Security")).toEqual([
      "known: Provider `default` (`azure-native`): `subscriptionId` `a` → `b`.",
      "known: Provider `default` (`azure-native`): `clientSecret` changes.",
    ]);
  });

  test("what somebody else changed is found by a refresh", () => {
    const type = "kubernetes:core/v1:ServiceAccount";
    const state = (name: string, inputs: object) => ({ op: "refresh", type, name, before: inputs, after: inputs });
    const summary = summaryOf(
      state("gone", { metadata: {} }),
      { op: "create", type, name: "gone", after: { metadata: {} } },
      state("other", { hostIPC: false, secrets: ["a"] }),
      {
        op: "update",
        type,
        name: "other",
        before: { secrets: ["a", "b"] },
        after: { hostIPC: false, secrets: ["a"] },
      },
      state("ours", { secrets: ["a"] }),
      { op: "update", type, name: "ours", before: { secrets: ["a"] }, after: { secrets: ["c"] } },
      state("same", { secrets: ["a"] }),
    );
    expect(linesOf(summary, "Changed from outside")).toEqual([
      "known: `ServiceAccount` `gone` is gone, though the stack did not remove it.",
      "predicted: `ServiceAccount` `gone` is made again.",
      "known: `ServiceAccount` `other` was changed by somebody else: `secrets[1]`.",
      "predicted: `ServiceAccount` `other` is set to what the stack says.",
    ]);
  });

  test("a type that nobody here knows is said to be unknown", () => {
    const summary = summaryOf({ op: "delete", type: "aws:s3/bucket:Bucket", name: "logs", before: {} });
    expect(linesOf(summary, "Not explained here")[0]).toMatch(/^unknown: What the delete of `logs`/);
  });

  test("nothing changes", () => {
    expect(renderMarkdown(summaryOf())).toContain("Nothing changes.");
    const waits = { op: "update", type: "command:local:Command", name: "workers-rollout", before: {}, after: {} };
    expect(renderMarkdown(summaryOf(waits))).toContain("`workers-rollout`");
    expect(renderMarkdown(summaryOf(waits))).not.toContain("Nothing changes");
  });

  test("a preview that failed says why, and nothing else", () => {
    const text = JSON.stringify({ steps: [], diagnostics: [{ severity: "error", message: "error: a mistake\n" }] });
    const markdown = renderMarkdown(summarize(readPreview(text)));
    expect(markdown).toContain("**The preview failed.**");
    expect(markdown).toContain("\na mistake\n");
  });

  test("what the engine warns of is told, and is not part of what is approved", () => {
    const warning = { severity: "warning", message: "warning: The feature is not registered.\n" };
    const { steps } = JSON.parse(document([]));
    const summary = summarize(readPreview(JSON.stringify({ steps, diagnostics: [warning, warning] })));
    expect(renderMarkdown(summary)).toContain("### The engine warns\n\n```\nThe feature is not registered.\n```\n");
    expect(canonical(summary)).toBe(canonical(summaryOf()));
  });

  test("properties that differ are read where a plugin names no paths below them, from both forms of a preview", () => {
    const urn = "urn:pulumi:production::contrast-runtime::pulumi:providers:kubernetes::kubernetes";
    const step = { op: "update", urn, oldState: { inputs: {} }, newState: { inputs: {} }, diffReasons: ["kubeconfig"] };
    const metadata = { op: "update", urn, old: { inputs: {} }, new: { inputs: {} }, diffs: ["kubeconfig"] };
    const previews = [
      JSON.stringify({ steps: [step] }),
      `${JSON.stringify({ sequence: 1, resourcePreEvent: { metadata } })}\n{"sequence":2,"summaryEvent":{}}`,
    ].map(readPreview);
    for (const { steps } of previews) expect(steps[0]?.paths).toEqual(["kubeconfig"]);
  });

  test("no parent and no provider are the same in both forms of a preview", () => {
    const urn = "urn:pulumi:production::contrast-runtime::contrast-runtime:index:ContrastRuntime::runtime";
    const told = { parent: "", provider: "", inputs: {} };
    const step = { op: "create", urn, newState: { inputs: {} } };
    const metadata = { op: "create", urn, new: told };
    const [one, two] = [
      JSON.stringify({ steps: [step] }),
      `${JSON.stringify({ sequence: 1, resourcePreEvent: { metadata } })}\n{"sequence":2,"summaryEvent":{}}`,
    ].map((text) => canonical(summarize(readPreview(text))));
    expect(two).toBe(one);
  });

  test("what is not a preview is refused", () => {
    for (const text of ["", "not JSON", '{"steps": 5}', '{"sequence": 0, "resourcePreEvent": {}}'])
      expect(() => readPreview(text)).toThrow(/pulumi preview --json|Invalid|is not/);
  });

  test("a document that says nothing is not one that says that nothing changes", () => {
    for (const text of ["{}", '{"steps": [], "diagnostics": []}'])
      expect(() => readPreview(text)).toThrow("it has no step, not even the stack's own");
  });

  const stackUrn = "urn:pulumi:production::contrast-runtime::pulumi:pulumi:Stack::contrast-runtime-production";
  const stackEvent = { sequence: 0, resourcePreEvent: { metadata: { op: "same", urn: stackUrn } } };
  const events = (...all: object[]) => all.map((each) => JSON.stringify(each)).join("\n");

  test("events that break off are no preview", () => {
    expect(() => readPreview(events(stackEvent))).toThrow("its last event, the engine's summary, is missing");
    expect(readPreview(events(stackEvent, { sequence: 1, summaryEvent: { result: "succeeded" } })).steps).toEqual([]);
  });

  test("a preview that a policy stops has failed, for the policy's reason where the events say it", () => {
    const policyEvent = { message: "Every container's image is named by digest.", enforcementLevel: "mandatory" };
    const ends = { sequence: 2, summaryEvent: { result: "failed" } };
    const advice = { ...policyEvent, enforcementLevel: "advisory" };
    expect(readPreview(events(stackEvent, { sequence: 1, policyEvent }, ends)).errors).toEqual([policyEvent.message]);
    expect(readPreview(events(stackEvent, { sequence: 1, policyEvent: advice }, ends)).errors).toEqual([
      "The engine only says: failed.",
    ]);
  });

  test("what an update that failed left behind is deleted, whichever way the preview tells it", () => {
    const type = "azure-native:containerservice:AgentPool";
    const urn = `urn:pulumi:production::contrast-runtime::${type}::cc-pool`;
    const steps = (...own: object[]) => JSON.stringify({ steps: [{ op: "same", urn: stackUrn }, ...own] });
    const step = (op: string, state: object = {}) => ({ op, urn, oldState: { inputs: {}, ...state } });
    const left = step("refresh", { delete: true });
    for (const text of [
      steps(step("delete-replaced", { delete: true })),
      steps(step("refresh"), left),
      steps(left, step("delete-replaced", { delete: true })),
      steps(step("create-replacement"), step("replace"), step("delete-replaced"), step("delete-replaced")),
    ]) {
      const summary = summarize(readPreview(text));
      expect(linesOf(summary, "Left behind by an update that failed")).toEqual([
        "known: `AgentPool` `cc-pool`: an earlier update replaced it and did not delete the old one, which is deleted now.",
      ]);
      expect(summary.operations.filter(({ op }) => op === "delete")).toHaveLength(1);
    }
    const replaced = steps(step("create-replacement"), step("replace"), step("delete-replaced"));
    expect(linesOf(summarize(readPreview(replaced)), "Left behind by an update that failed")).toEqual([]);
  });

  test("what cannot be read is said, whatever only the update will know", () => {
    const pending = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";
    const rbac = "kubernetes:rbac.authorization.k8s.io/v1";
    const create = (type: string, after: object): DocumentStep => ({ op: "create", type, name: "it", after });
    const pods = { tolerations: pending, containers: pending, volumes: pending };
    const summary = summaryOf(
      ...[nodeInstallerCard, contrastRuntimeCard, bareMetalNodesCard, localClusterCard].map(({ type }) =>
        create(type, { runtimes: pending, hosts: pending, nodes: pending }),
      ),
      create("kubernetes:core/v1:ConfigMap", { data: { "spec.json": pending } }),
      create("kubernetes:apps/v1:DaemonSet", { spec: { template: { spec: pods } } }),
      create(`${rbac}:Role`, { rules: pending }),
      create(`${rbac}:ClusterRole`, { rules: [{ apiGroups: pending, resources: ["nodes"], verbs: pending }] }),
      create(`${rbac}:RoleBinding`, { subjects: pending, roleRef: pending }),
    );
    const types = [
      ...[bareMetalNodesCard, contrastRuntimeCard, localClusterCard, nodeInstallerCard].map(({ type }) => type),
      ...["core/v1:ConfigMap", "rbac.authorization.k8s.io/v1:Role", "rbac.authorization.k8s.io/v1:RoleBinding"].map(
        (each) => `kubernetes:${each}`,
      ),
    ];
    expect(linesOf(summary, "Not explained here")).toEqual(
      expect.arrayContaining(
        types.map((type) => `unknown: What changes in \`it\` (\`${type}\`): this summary cannot read what it holds.`),
      ),
    );
    const security = linesOf(summary, "Security");
    expect(security).toContain("unknown: ClusterRole `it` allows: `not known yet nodes of not known yet`.");
    expect(security).toContain('unknown: DaemonSet `it` tolerates `"not known yet"`.');
    expect(security).toContain("unknown: DaemonSet `it` is new; its pods have: `containers not known yet`.");
  });

  test("a value cannot leave its code span", () => {
    const name = "x` ![](https://example.com/)\n# y";
    const markdown = renderMarkdown(summaryOf({ op: "create", type: "aws:a:B", name, after: {} }));
    expect(markdown).not.toContain("x`");
    expect(markdown).not.toContain("\n# y");
  });

  test("a bar in a name ends no cell of the table", () => {
    const name = "x | ![](https://example.com/) | y";
    const markdown = renderMarkdown(summaryOf({ op: "create", type: "aws:a:B", name, after: {} }));
    expect(markdown.split("\n").find((line) => line.startsWith("| create"))).toBe(
      "| create | `aws:a:B` | `x \\| ![](https://example.com/) \\| y` |  |",
    );
  });

  test("characters that nobody sees are shown", () => {
    const [line] = linesOf(
      summaryOf({ op: "create", type: "aws:a:B", name: "a\u202eb\u200b\u0085", after: {} }),
      "Not explained here",
    );
    expect(line).toContain("`a\\u{202e}b\\u{200b}\\u{85}`");
  });

  test("of two long values every part is shown in which they differ", () => {
    const expression = (end: string) => ({ spec: { validations: [{ expression: `${"a && ".repeat(100)}${end}` }] } });
    const type = "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicy";
    const step = { op: "update", type, name: "p", before: expression("own == node"), after: expression("true") };
    const line = summaryOf(step).sections.find(({ title }) => title === "Security")?.lines[0];
    expect(line).toEqual({
      certainty: "known",
      text: "ValidatingAdmissionPolicy `p`: `spec.validations[0].expression` changes:",
      block: "    (98 lines as before)\n    a && \n    a && \n-   own == node\n+   true",
    });
  });

  test("a value that only the update will know makes no line known", () => {
    const host = (address: string) => [{ name: "h", address }];
    const step = hostStep(host("192.0.2.1"), host("04da6b54-80e4-46f7-96ec-b56ff0331ba9"));
    const lines = linesOf(summaryOf(step), "Nodes");
    expect(lines).toEqual(["unknown: Host `h` is at `not known yet` instead of `192.0.2.1`."]);
  });

  test("a comment is never longer than a forge takes", () => {
    const steps = Array.from({ length: 3_000 }, (_, number) => ({
      op: "create",
      type: "aws:a:B",
      name: `n${number}`,
      after: {},
    }));
    const markdown = renderMarkdown(summaryOf(...steps));
    expect(markdown.length).toBeLessThan(65_536);
    expect(markdown).toContain("- … and 2700 lines more. The stored summary has all of them.");
    expect(markdown).toContain("3000 operations of the engine, too many for a comment");
    const message = "a".repeat(70_000);
    const failed = JSON.stringify({ diagnostics: Array(20).fill({ severity: "error", message }) });
    expect(renderMarkdown(summarize(readPreview(failed))).length).toBeLessThan(65_536);
  });

  test("where a comment has no room it says what is left out and where it is, and security comes first", () => {
    const steps: DocumentStep[] = Array.from({ length: 500 }, (_, number) => ({
      ...{ op: "create", type: "command:remote:Command", name: `n${number}` },
      after: { create: "sh -s", stdin: `${`echo ${number}\n`.repeat(300)}# the end` },
    }));
    const pod = (hostNetwork: boolean) => ({ spec: { template: { spec: { hostNetwork } } } });
    const change = {
      op: "update",
      type: "kubernetes:apps/v1:DaemonSet",
      name: "d",
      before: pod(false),
      after: pod(true),
    };
    const group = groupSteps(undefined, { runtimes: [go] });
    const markdown = renderMarkdown(summaryOf(...steps, ...group, change));
    expect(markdown.length).toBeLessThan(65_536);
    expect(markdown).toMatch(
      /Too long for a comment.*Not everything is shown of: .*Commands.*It is in the stored summary/,
    );
    expect(markdown.indexOf("### Security")).toBeLessThan(markdown.indexOf("### Runtimes"));
    expect(markdown).toContain("pod's `hostNetwork` `false` → `true`");
    expect(markdown).toMatch(/… \d+ more lines not shown; SHA-256 of all: [0-9a-f]{64}/);
  });

  test("a script in a block cannot end it", () => {
    const after = { create: "```\n# HOSTILE\n````\n\u001b[2K\u202e" };
    const markdown = renderMarkdown(summaryOf({ op: "create", type: "command:remote:Command", name: "c", after }));
    expect(markdown).toContain(
      "\n  `````diff\n  + create:\n  +   ```\n  +   # HOSTILE\n  +   ````\n  +   \\u{1b}[2K\\u{202e}\n  `````\n",
    );
  });

  test("many hosts push nothing out that concerns security", () => {
    const hosts = Array.from({ length: 1_000 }, (_, at) => ({
      name: `host-${at}`,
      address: `192.0.2.${at}`,
      hostKey: `ssh-ed25519 ${"A".repeat(68)}`,
    }));
    const pod = (privileged: boolean) => ({ spec: { template: { spec: { hostNetwork: privileged } } } });
    const markdown = renderMarkdown(
      summaryOf(
        { op: "create", type: bareMetalNodesCard.type, name: "hosts", after: hostCard(hosts) },
        { op: "update", type: "kubernetes:apps/v1:DaemonSet", name: "d", before: pod(false), after: pod(true) },
      ),
    );
    expect(markdown.length).toBeLessThan(65_536);
    expect(markdown).toContain("pod's `hostNetwork` `false` → `true`");
    expect(markdown).toContain("Host `host-0`");
  });
});

describe("the canonical form", () => {
  const steps = [...groupSteps({ runtimes: [go] }, { runtimes: [next] }), runtimeStep({}, {})];

  test("does not depend on the order of steps", () => {
    expect(canonical(summarize(previewOf(...steps.toReversed())))).toBe(canonical(summarize(previewOf(...steps))));
  });

  test("does not depend on the order of keys, on times or on source positions", () => {
    const { steps: raw } = JSON.parse(document(steps));
    const moved = raw.map((step: { newState?: object }) => ({
      ...step,
      ...(step.newState && {
        newState: Object.fromEntries(
          Object.entries({ ...step.newState, modified: "2026", sourcePosition: "x" }).reverse(),
        ),
      }),
    }));
    const text = JSON.stringify({ duration: 5, steps: moved });
    expect(canonical(summarize(readPreview(text)))).toBe(canonical(summarize(previewOf(...steps))));
  });

  test("holds every input by its digest, and no secret", () => {
    const step = (value: string) => ({
      op: "update",
      type: "command:remote:Command",
      name: "h",
      before: {},
      after: { stdin: "[secret]", create: value },
    });
    const [one, two] = ["a", "b"].map((value) => canonical(summaryOf(step(value))));
    expect(one).not.toBe(two);
    expect(one).toMatch(/"inputs": "[0-9a-f]{64}"/);
  });
});

describe("every example", () => {
  const examples = ["dev", ...readdirSync("examples").flatMap((file) => /^Pulumi\.(.+)\.yaml$/.exec(file)?.[1] ?? [])];
  test.each(examples)("%s is understood, and no secret is told", (name) => {
    const summary = summaryOf(...exampleSteps(name));
    expect(summary.sections.map(({ title }) => title)).toEqual(
      expect.arrayContaining(["Runtimes", "Nodes", "Restarts of containerd", "Security"]),
    );
    expect(linesOf(summary, "Not explained here")).toEqual([]);
    const text = renderMarkdown(summary) + canonical(summary);
    expect(text).not.toContain("decrypted");
    expect(text).not.toContain("kubeconfig of");
  });
});
