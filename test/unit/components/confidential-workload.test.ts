import * as pulumi from "@pulumi/pulumi";
import { expect, test } from "vitest";
import { WrongArguments } from "../../../components/arguments.ts";
import { ConfidentialWorkload, type ConfidentialWorkloadArgs } from "../../../components/confidential-workload.ts";
import { launchValues } from "../../../measure/launch-values.ts";
import { referenceValues } from "../../../measure/reference-values.ts";
import { deriveRuntime, measuredRuntime } from "../../../measure/runtime.ts";
import { hypervisorAnnotations, initdataAnnotation, policyAnnotation } from "../../../runtime/annotations.ts";
import { decodeInitdata, policyDigest } from "../../../workload/initdata.ts";
import { payloadsFor } from "../../campaigns/kata-payload.ts";
import { record } from "../../recorded-program.ts";
import { fixtureManifest } from "../runtime/fixtures.ts";

const manifest = fixtureManifest("contrast-go");
const { handler } = deriveRuntime({ platform: "metal-qemu-snp", manifest });
const image = `registry.example.com/app@sha256:${"a".repeat(64)}`;
const rego = "package agent_policy\n";
const template = (cpu: string) => ({
  metadata: { labels: { app: "web" } },
  // Known only once other resources exist.
  spec: { containers: [{ name: "web", image: pulumi.output(image), resources: { limits: { cpu, memory: "1Gi" } } }] },
});
const args = (changes: Partial<ConfidentialWorkloadArgs> = {}): ConfidentialWorkloadArgs => ({
  platform: "metal-qemu-snp",
  manifest,
  template: template("500m"),
  initdata: pulumi.output({ algorithm: "sha256" as const, data: { "policy.rego": rego } }),
  ...changes,
});

interface Card {
  handler: string;
  initdata: { digest: string };
  policyDigest: string;
  rootHashes?: object;
  reference: { snp: Record<string, Record<string, string>> };
}

async function workload(given: ConfidentialWorkloadArgs): Promise<{ card: Card; template: unknown }> {
  let template: unknown;
  const [made] = await record(() => {
    const component = new ConfidentialWorkload("web", given);
    component.template.apply((value) => {
      template = value;
    });
  });
  return { card: made?.inputs as unknown as Card, template };
}

test("the template is ready for the runtime, and the card says what its pods are attested with", async () => {
  const { card, template } = await workload(args());
  expect(template).toMatchObject({
    metadata: { labels: { app: "web" } },
    spec: {
      runtimeClassName: handler,
      containers: [{ image, resources: { requests: { cpu: "500m", memory: "1Gi" } } }],
    },
  });
  const { annotations } = (template as { metadata: { annotations: Record<string, string> } }).metadata;
  expect(decodeInitdata(annotations[initdataAnnotation] ?? "")).toContain("package agent_policy");
  expect(card).toMatchObject({ handler, payload: manifest.name, policyDigest: policyDigest(rego) });
  expect(card.initdata.digest).toMatch(/^[0-9a-f]{64}$/);
  expect(card).not.toHaveProperty("rootHashes");
});

test.each([
  ["kata-go", {}, "1500m", 3],
  ["kata-go", { default_vcpus: 4 }, "1500m", 6],
  ["kata-rs", {}, "1500m", 2],
  ["kata-rs", { overhead_vcpus: 2 }, "1500m", 4],
  // Of guests without limits, which the component does not make.
  ["kata-rs", { default_vcpus: 4 }, "1500m", 2],
])("with %s and %j, a limit of %s makes a guest with %i vCPUs", async (flavour, hypervisor, cpu, vcpus) => {
  const [payload] = payloadsFor({ flavour, kataVersion: "4.1.0" });
  const given = args({ manifest: payload?.manifest ?? manifest, kata: { hypervisor }, template: template(cpu) });
  const { card } = await workload(given);
  expect(Object.values(card.reference.snp).map((row) => Object.keys(row))).toEqual([[`${vcpus}`]]);
});

test("a template that names another class of the handler keeps it", async () => {
  const classNames = ["contrast-cc-metal-qemu-snp-1a2b3c4d"];
  const { spec } = template("1");
  const named = { spec: { ...spec, runtimeClassName: classNames[0] } };
  const made = (await workload(args({ classNames, template: named }))).template;
  expect(made).toMatchObject({ spec: { runtimeClassName: classNames[0] } });
});

test("the reference row is the one for the vCPUs that the limits add up to", async () => {
  const { snp } = (await workload(args())).card.reference;
  expect(Object.keys(snp["EPYC-Milan"] ?? {})).toEqual(["2"]);
  // Such a pod is the example on the runtime's card.
  const card = launchValues(measuredRuntime({ platform: "metal-qemu-snp", manifest }));
  expect(snp["EPYC-Milan"]?.["2"]).toBe(card["EPYC-Milan launch digest, 2 vCPUs"]);
  const larger = (await workload(args({ template: template("3") }))).card.reference.snp;
  expect(Object.keys(larger["EPYC-Genoa"] ?? {})).toEqual(["4"]);
});

test("Contrast's Kata gets an ID block for each generation of CPU: guests with another launch digest do not start", async () => {
  const annotationsOf = async (changes: Partial<ConfidentialWorkloadArgs>) =>
    ((await workload(args(changes))).template as { metadata: { annotations: Record<string, string> } }).metadata
      .annotations;
  const annotations = await annotationsOf({});
  const { snp } = (await workload(args())).card.reference;
  for (const product of ["Milan", "Genoa"]) {
    const block = Buffer.from(annotations[`${hypervisorAnnotations}snp_id_block_${product}`] ?? "", "base64");
    expect(block.toString("hex", 0, 48)).toBe(snp[`EPYC-${product}`]?.["2"]);
    expect(Buffer.from(annotations[`${hypervisorAnnotations}snp_id_auth_${product}`] ?? "", "base64")).toHaveLength(
      4096,
    );
    expect(annotations[`${hypervisorAnnotations}snp_guest_policy_${product}`]).toBe("196608");
  }
  // The digest is that of the line that Kata makes of the file on the node, as for the reference values.
  const { guest } = manifest;
  if (guest === undefined) throw new Error("the fixture has a guest");
  const later = { ...manifest, guest: { ...guest, kernelParams: `${guest.kernelParams} agent.log=info` } };
  const inputs = measuredRuntime({ platform: "metal-qemu-snp", manifest: later }).inputs;
  expect(inputs?.commandLine).toContain(" agent.launch_process_timeout=6 ");
  const [milan] = referenceValues(inputs ?? {}, { tee: "snp", models: ["EPYC-Milan"], vcpus: [2] }).snp;
  const block = (await annotationsOf({ manifest: later }))[`${hypervisorAnnotations}snp_id_block_Milan`] ?? "";
  expect(Buffer.from(block, "base64").toString("hex", 0, 48)).toBe(milan?.measurement);
  expect(block).not.toBe(annotations[`${hypervisorAnnotations}snp_id_block_Milan`]);
  // Where the line is not known no guest could be expected: none is refused by a guess.
  expect(Object.keys(await annotationsOf({ manifest: { ...manifest, kataVersion: "4.2.0" } }))).toEqual([
    initdataAnnotation,
  ]);
  // Upstream Kata would refuse pods that have them.
  expect(Object.keys(await annotationsOf({ manifest: fixtureManifest("kata-go") }))).toEqual([initdataAnnotation]);
});

test("pods without a policy are ready once the program says so by name", async () => {
  const initdata = { algorithm: "sha256" as const, data: {} };
  const { card } = await workload(args({ initdata, withoutPolicy: true }));
  expect(card.initdata.digest).toMatch(/^[0-9a-f]{64}$/);
  expect(card).not.toHaveProperty("policyDigest");
});

test("what a trap's name acknowledges is let through; a name without its trap is a mistake", async () => {
  const spec = { containers: [{ name: "web", image, resources: { limits: { cpu: "1", memory: "1Gi" } } }] };
  const trapped = { spec: { ...spec, volumes: [{ name: "host", hostPath: { path: "/etc" } }] } };
  // Known at once, so that mistakes are, too.
  const known = { template: { spec }, initdata: { algorithm: "sha256" as const, data: { "policy.rego": rego } } };
  const refused = async (changes: Partial<ConfidentialWorkloadArgs>, problem: string) =>
    await expect(workload(args({ ...known, ...changes }))).rejects.toThrow(problem);
  await refused({ template: trapped }, 'template.spec.volumes[0].hostPath: is "/etc": the guest gets a copy');
  const { card } = await workload(args({ ...known, template: trapped, acknowledgedTraps: ["host-path"] }));
  expect(card.policyDigest).toBe(policyDigest(rego));
  await refused(
    { acknowledgedTraps: ["host-path"] },
    'acknowledgedTraps: has "host-path", but there is none in the template: remove it.',
  );
  await refused(
    { withoutPolicy: true },
    'withoutPolicy: is true, but initdata.data has a "policy.rego": remove one of them.',
  );
  await refused({ acknowledgedTraps: ["hostpath"] }, "acknowledgedTraps");
});

test("a template that was made ready before brings its initdata with it", async () => {
  const { card, template: ready } = await workload(args());
  const again = await workload(args({ template: ready as pulumi.Inputs, initdata: undefined }));
  expect(again.card).toEqual(card);
  expect(again.template).toEqual(ready);
});

test("on AKS the card has the roots of the images' layers, if it is known how nodes compute them", async () => {
  const layers = { [image]: [{ diffId: `sha256:${"1".repeat(64)}`, rootHash: "2".repeat(64) }] };
  const manifest = fixtureManifest("contrast-aks");
  const aks = args({ platform: "aks-clh-snp", manifest, layers });
  const { card, template } = await workload(aks);
  expect(card.rootHashes).toEqual({ web: ["2".repeat(64)] });
  // This Kata's configuration does not let pods have initdata: it would refuse them.
  expect((template as { metadata: { annotations: object } }).metadata.annotations).toEqual({
    [policyAnnotation]: Buffer.from(rego).toString("base64"),
  });
  expect(card.initdata).toMatchObject({ hostData: policyDigest(rego) });
  const newer = { ...aks, manifest: { ...manifest, kataVersion: "3.15.0.aks0" } };
  await expect(workload(newer)).rejects.toThrow(
    "has Kata 3.15.0.aks0, but how nodes compute the root hashes of layers is known only for",
  );
});

test("a template that does not fit is a mistake in the arguments, with the paths of its fields", async () => {
  const container = { name: "web", image: "registry.example.com/app:latest", resources: { limits: { cpu: "1" } } };
  const initdata = { algorithm: "sha256" as const, data: {} };
  const unfit = args({ template: { spec: { hostNetwork: true, containers: [container] } }, initdata });
  let refusal: unknown;
  const registered = await record(() => {
    try {
      new ConfidentialWorkload("web", unfit);
    } catch (error) {
      refusal = error;
    }
  });
  expect(registered).toEqual([]);
  expect(refusal).toBeInstanceOf(WrongArguments);
  const { errors, message } = refusal as WrongArguments;
  expect(errors.map(({ propertyPath }) => propertyPath)).toEqual([
    "template.spec.containers[0].image",
    "template.spec.containers[0].resources.limits.memory",
    "template.spec.hostNetwork",
    "initdata.data",
  ]);
  expect(message).toMatch(/^The arguments of ConfidentialWorkload web cannot be used:\n {2}template\.spec\.containers/);
  expect(message).toContain(
    "\n  template.spec.hostNetwork: is true, but a confidential VM shares nothing with its host.\n",
  );
});
