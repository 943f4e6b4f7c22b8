import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type DiffOptions, diffObjects, quantity } from "../../stand-ins/kubernetes/diff.ts";
import { checkpoint, liveInputs, parseCheckpoint, withName } from "../../stand-ins/kubernetes/objects.ts";
import { isSecret, type Properties, type Value } from "../../stand-ins/values.ts";

const options: DiffOptions = { namespaced: true, mutableSecrets: false, mutableConfigMaps: false };

/** Path → kind of the change, with " replaces" if it replaces the object. */
function diff(
  oldInputs: Properties,
  inputs: Properties,
  more: Partial<DiffOptions> = {},
  live: Properties = oldInputs,
) {
  const { changes, deleteBeforeReplace } = diffObjects({ oldInputs, live, inputs }, { ...options, ...more });
  const entries = [...changes].map(([path, { kind, replace }]) => [path, `${kind}${replace ? " replaces" : ""}`]);
  return { changes: Object.fromEntries(entries), deleteBeforeReplace };
}

const object = (kind: string, body: Properties, name = "n"): Properties => ({
  apiVersion:
    { DaemonSet: "apps/v1", RuntimeClass: "node.k8s.io/v1", RoleBinding: "rbac.authorization.k8s.io/v1" }[kind] ?? "v1",
  kind,
  metadata: { name },
  ...body,
});

describe("what the API changes in place and what replaces", () => {
  const daemonSet = (app: string, image: string) =>
    object("DaemonSet", {
      spec: { selector: { matchLabels: { app } }, template: { spec: { containers: [{ name: "c", image }] } } },
    });
  const cases: [string, Properties, Properties, Record<string, string>][] = [
    [
      "an image of a DaemonSet",
      daemonSet("a", "1"),
      daemonSet("a", "2"),
      { "spec.template.spec.containers[0].image": "update" },
    ],
    ["a selector", daemonSet("a", "1"), daemonSet("b", "1"), { "spec.selector.matchLabels.app": "update replaces" }],
    ["a name", object("Namespace", {}, "a"), object("Namespace", {}, "b"), { "metadata.name": "update replaces" }],
    [
      "a role",
      object("RoleBinding", { roleRef: { name: "a" } }),
      object("RoleBinding", { roleRef: { name: "b" } }),
      { "roleRef.name": "update replaces" },
    ],
    [
      "a handler: the official table does not know that it is immutable",
      object("RuntimeClass", { handler: "a" }),
      object("RuntimeClass", { handler: "b" }),
      { handler: "update" },
    ],
    [
      "a key of a ConfigMap",
      object("ConfigMap", { data: { a: "1" } }),
      object("ConfigMap", { data: { "b.c": "1" } }),
      { "data.a": "delete replaces", 'data["b.c"]': "add replaces" },
    ],
    [
      "where a volume's data is, and how much",
      object("PersistentVolume", { spec: { nfs: { path: "/a" }, capacity: { storage: "1Gi" } } }),
      object("PersistentVolume", { spec: { nfs: { path: "/b" }, capacity: { storage: "2Gi" } } }),
      { "spec.nfs.path": "update replaces", "spec.capacity.storage": "update" },
    ],
    [
      "anything of an old disruption budget",
      { ...object("PodDisruptionBudget", { spec: { minAvailable: 1 } }), apiVersion: "policy/v1beta1" },
      { ...object("PodDisruptionBudget", { spec: { minAvailable: 2 } }), apiVersion: "policy/v1beta1" },
      { "spec.minAvailable": "update replaces" },
    ],
    [
      "a Pod's image",
      object("Pod", { spec: { containers: [{ image: "1" }] } }),
      object("Pod", { spec: { containers: [{ image: "2" }] } }),
      { "spec.containers[0].image": "update replaces" },
    ],
    [
      "a label",
      object("Pod", {}),
      object("Pod", { metadata: { name: "n", labels: { a: "1" } } }),
      { "metadata.labels": "add" },
    ],
  ];
  test.each(cases)("%s", (_, olds, news, expected) => {
    expect(diff(olds, news).changes).toEqual(expected);
  });

  test("data of ConfigMaps and Secrets changes in place when the provider allows it and the object does not forbid it", () => {
    const secret = (value: string, more: Properties = {}) => object("Secret", { data: { a: value }, ...more });
    expect(diff(secret("1"), secret("2")).changes).toEqual({ "data.a": "update replaces" });
    expect(diff(secret("1"), secret("2"), { mutableSecrets: true }).changes).toEqual({ "data.a": "update" });
    const typed = (type: string) => object("Secret", { type });
    expect(diff(typed("a"), typed("b")).changes).toEqual({ type: "update replaces" });
    expect(diff(typed("a"), typed("b"), { mutableSecrets: true }).changes).toEqual({ type: "update" });
    const fixed = diff(secret("1", { immutable: true }), secret("2", { immutable: true }), { mutableSecrets: true });
    expect(fixed.changes).toEqual({ "data.a": "update replaces" });
  });
});

describe("an old object is deleted first", () => {
  test("when the new one has its name", () => {
    const map = (data: string, name: string) => object("ConfigMap", { data: { a: data } }, name);
    expect(diff(map("1", "n"), map("2", "n")).deleteBeforeReplace).toBe(true);
    expect(diff(map("1", "n"), map("2", "m")).deleteBeforeReplace).toBe(false);
  });

  test("but not when it was named by the plugin", () => {
    const map = (data: string) =>
      withName({ apiVersion: "v1", kind: "ConfigMap", data: { a: data } }, {}, "r", new Uint8Array([1]));
    expect(diff(map("1"), map("2"))).toEqual({ changes: { "data.a": "update replaces" }, deleteBeforeReplace: false });
  });
});

describe("what the server adds or writes in its own way does not count as a change", () => {
  test("defaults, empty values and the default namespace", () => {
    const inputs = object("Pod", { spec: { containers: [{ name: "c" }], hostNetwork: false, volumes: [] } });
    const live = {
      ...inputs,
      spec: { containers: [{ name: "c", imagePullPolicy: "Always" }], dnsPolicy: "ClusterFirst" },
      status: { phase: "Running" },
    };
    const named = { ...inputs, metadata: { name: "n", namespace: "default" } };
    expect(diff(inputs, named, {}, live).changes).toEqual({});
  });

  test("quantities", () => {
    const overhead = (memory: string) => object("RuntimeClass", { overhead: { podFixed: { memory } } });
    expect(diff(overhead("0.25Gi"), overhead("0.25Gi"), { namespaced: false }, overhead("256Mi")).changes).toEqual({});
    expect(diff(overhead("256Mi"), overhead("257Mi"), { namespaced: false }).changes).toEqual({
      "overhead.podFixed.memory": "update",
    });
  });

  test("a Secret's stringData, which the server keeps as data", () => {
    const inputs = object("Secret", { stringData: { a: "x" } });
    const live = object("Secret", { data: { a: Buffer.from("x").toString("base64") } });
    expect(diff(inputs, inputs, {}, live).changes).toEqual({});
    expect(diff(inputs, object("Secret", { stringData: { a: "y" } }), {}, live).changes).toEqual({
      "stringData.a": "update replaces",
    });
  });

  test("but what somebody else changed is", () => {
    const inputs = object("RuntimeClass", { handler: "mine" });
    const live = object("RuntimeClass", { handler: "theirs" });
    expect(diff(inputs, inputs, { namespaced: false }, live).changes).toEqual({ handler: "update" });
  });
});

describe("quantities", () => {
  test.each([
    ["1", 1],
    ["100m", 0.1],
    ["1.5Gi", 1.5 * 1024 ** 3],
    ["2k", 2000],
    ["1e3", 1000],
    ["", undefined],
    ["1Zi", undefined],
  ] as [Value, number | undefined][])("%s", (text, expected) => expect(quantity(text)).toBe(expected));
});

const json = fc.letrec<{ value: Value }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.string(),
    fc.integer(),
    fc.boolean(),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(fc.constantFrom("a", "b", "metadata", "spec"), tie("value"), { noNullPrototype: true, maxKeys: 3 }),
  ),
})).value;
const body = fc.dictionary(fc.constantFrom("spec", "data", "x"), json, { noNullPrototype: true });

describe("properties", () => {
  test("the same inputs over what they made are never a change", () => {
    fc.assert(
      fc.property(body, body, (fields, added) => {
        const inputs = object("ConfigMap", fields);
        const live = { ...added, ...inputs, status: {} };
        expect(diff(inputs, inputs, {}, live).changes).toEqual({});
        expect(liveInputs(live, inputs)).toEqual(inputs);
      }),
    );
  });

  test("what the engine keeps gives back inputs and object, and hides what a Secret holds", () => {
    fc.assert(
      fc.property(body, (fields) => {
        const inputs = object("Secret", { ...fields, data: { a: "QQ==" } });
        const live = { ...inputs, metadata: { name: "n", uid: "u" } };
        const state = checkpoint(inputs, live, "manager");
        expect(parseCheckpoint(state)).toEqual({ inputs, live, fieldManager: "manager" });
        expect(isSecret(state.data)).toBe(true);
        expect(JSON.stringify(state.__inputs)).toContain("1b47061264138c4ac30d75fd1eb44270");
      }),
    );
  });
});
