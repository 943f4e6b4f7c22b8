/** A name that is resolved at admission, by a real API server with its own admission plugins. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { classResolution } from "../../components/manifests/class-resolution.ts";
import { type Api, apiClient } from "../../node-installer/kubernetes/api.ts";
import { unresolvedHandler } from "../../runtime/names.ts";
import { until } from "../until.ts";
import { type ApiServer, startApiServer } from "./api-server.ts";

const [old, next] = ["contrast-cc-metal-qemu-snp-0a1b2c3d", "contrast-cc-metal-qemu-snp-4e5f6a7b"];
const names = ["contrast-cc", "contrast-cc-metal-qemu-snp-1a2b3c4d"];
const admission = "/apis/admissionregistration.k8s.io/v1";
const pods = "/api/v1/namespaces/default/pods";

let server: ApiServer;
let admin: Api;
beforeAll(async () => {
  server = await startApiServer({ controllers: ["namespace-controller"] });
  admin = apiClient(server.admin);
  await until("namespace default", () =>
    admin.create("/api/v1/namespaces", { metadata: { name: "default" } }).then(
      () => true,
      (error) => error.status === 409,
    ),
  );
  for (const [handler, memory] of [
    [old, "100Mi"],
    [next, "200Mi"],
  ] as const)
    await admin.create("/apis/node.k8s.io/v1/runtimeclasses", {
      metadata: { name: handler },
      handler,
      overhead: { podFixed: { memory } },
      scheduling: { nodeSelector: { [handler]: "true" }, tolerations: [{ key: handler, operator: "Exists" }] },
    });
  for (const name of names) {
    const { policy, binding, refusal, refusalBinding } = classResolution(name, old);
    await admin.create(`${admission}/mutatingadmissionpolicies`, policy);
    await admin.create(`${admission}/mutatingadmissionpolicybindings`, binding);
    await admin.create(`${admission}/validatingadmissionpolicies`, refusal);
    await admin.create(`${admission}/validatingadmissionpolicybindings`, refusalBinding);
    await admin.create("/apis/node.k8s.io/v1/runtimeclasses", { metadata: { name }, handler: unresolvedHandler });
  }
  for (const name of names) await inForce(name, old);
}, 900_000);
afterAll(() => server?.stop());

interface Pod {
  metadata: { name: string };
  spec: {
    runtimeClassName: string;
    overhead?: object;
    nodeSelector?: object;
    tolerations: { key: string; operator: string }[];
  };
}

/** As the API server admits it, without keeping it. */
const admitted = (runtimeClassName: string, spec: object = {}, metadata: object = {}): Promise<Pod> =>
  admin.create<Pod>(`${pods}?dryRun=All`, {
    metadata: { name: "pod", ...metadata },
    spec: { runtimeClassName, containers: [{ name: "c", image: "none" }], ...spec },
  });
/** Admission learns of a policy a moment after it was written. */
const inForce = (name: string, handler: string) =>
  until(`${name} is resolved to ${handler}`, async () => (await admitted(name)).spec.runtimeClassName === handler);

test.each(names)("%s becomes the handler, with its overhead, node selector and tolerations", async (name) => {
  const { spec } = await admitted(name, { nodeSelector: { own: "label" } });
  expect(spec).toMatchObject({
    runtimeClassName: old,
    overhead: { memory: "100Mi" },
    nodeSelector: { own: "label", [old]: "true" },
  });
  expect(spec.tolerations).toContainEqual({ key: old, operator: "Exists" });
});

test("pods whose lists have something twice, or that are made by a controller's name, are resolved as well", async () => {
  const env = [1, 2].map((value) => ({ name: "A", value: `${value}` }));
  const ports = [{ containerPort: 1 }, { containerPort: 1 }];
  const { spec } = await admitted("contrast-cc", { containers: [{ name: "c", image: "none", env, ports }] });
  expect(spec.runtimeClassName).toBe(old);
  const named = await admitted("contrast-cc", {}, { name: undefined, generateName: "web-" });
  expect(named.spec.runtimeClassName).toBe(old);
});

test("every other class, and none, is left alone", async () => {
  expect((await admitted(next)).spec).toMatchObject({ runtimeClassName: next, overhead: { memory: "200Mi" } });
  const containers = [{ name: "c", image: "none" }];
  const plain = await admin.create<Pod>(`${pods}?dryRun=All`, { metadata: { name: "pod" }, spec: { containers } });
  expect(plain.spec).not.toHaveProperty("runtimeClassName");
  await expect(admitted("contrast-other")).rejects.toThrow('RuntimeClass "contrast-other" not found');
});

test("a pod with another overhead than the handler's is refused", async () => {
  await expect(admitted("contrast-cc", { overhead: { memory: "7Mi" } })).rejects.toThrow(
    "Pod's Overhead doesn't match RuntimeClass's defined Overhead",
  );
});

test("a switch is one change of the policy: new pods get the new handler, running ones keep theirs", async () => {
  const containers = [{ name: "c", image: "none" }];
  await admin.create(pods, { metadata: { name: "running" }, spec: { runtimeClassName: "contrast-cc", containers } });
  const path = `${admission}/mutatingadmissionpolicies/contrast-cc`;
  const { policy } = classResolution("contrast-cc", next);
  await admin.mergePatch(path, policy);
  await inForce("contrast-cc", next);
  const { spec } = await admitted("contrast-cc");
  expect(spec).toMatchObject({ overhead: { memory: "200Mi" }, nodeSelector: { [next]: "true" } });
  expect(spec.nodeSelector).not.toHaveProperty([old]);
  expect((await admin.get<Pod>(`${pods}/running`)).spec).toMatchObject({ runtimeClassName: old });
  expect((await admitted(names[1] ?? "")).spec.runtimeClassName).toBe(old);
});

test("a pod that is not resolved, as one that got the name from a webhook, is refused and told so", async () => {
  const [, name = ""] = names;
  await admin.delete(`${admission}/mutatingadmissionpolicybindings/${name}`);
  const attempt = () =>
    admitted(name).then(
      () => undefined,
      (error: Error) => error.message,
    );
  const said = await until("the policy no longer acts", attempt);
  expect(said).toContain("Something wrote it into this pod too late for that: let it write the handler's own name.");
});
