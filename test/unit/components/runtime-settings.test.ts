import { describe, expect, test } from "vitest";
import { ConfidentialWorkload, type ConfidentialWorkloadArgs } from "../../../components/confidential-workload.ts";
import { ContrastRuntime, type ContrastRuntimeArgs, type RuntimeArgs } from "../../../components/contrast-runtime.ts";
import { initdataAnnotation } from "../../../runtime/annotations.ts";
import { decodeInitdata } from "../../../workload/initdata.ts";
import { type Recorded, record } from "../../recorded-program.ts";
import { fixtureAdvisories, fixtureHandler, fixtureManifest } from "../runtime/fixtures.ts";

const image = `registry.example.com/contrast-node-installer@sha256:${"a".repeat(64)}`;
const runtime = (fixture: string, changes: Partial<RuntimeArgs> = {}): RuntimeArgs => ({
  platform: "metal-qemu-snp",
  manifest: fixtureManifest(fixture),
  acknowledgedAdvisories: fixtureAdvisories[fixture] ?? [],
  ...changes,
});
const planOf = (runtimes: RuntimeArgs[], more: Partial<ContrastRuntimeArgs> = {}): Promise<Recorded[]> =>
  record(
    () =>
      new ContrastRuntime("runtime", {
        image,
        groups: [{ group: "workers", distribution: { name: "containerd" }, runtimes }],
        ...more,
      }),
  );
const of = (plan: Recorded[], type: string) => plan.filter((resource) => resource.type.endsWith(type));
const inputsOf = <T>(plan: Recorded[], type: string): T[] => of(plan, type).map(({ inputs }) => inputs as T);

interface Class {
  metadata: { name: string };
  handler: string;
  overhead: { podFixed: { memory: string } };
  scheduling: unknown;
}

test("a handler has a class of each further name, which differs in nothing but that", async () => {
  const [handler, plan] = [fixtureHandler("kata-go"), await planOf([runtime("kata-go", { classNames: ["cc"] })])];
  const classes = inputsOf<Class>(plan, ":RuntimeClass");
  expect(classes.map(({ metadata }) => metadata.name)).toEqual(["cc", handler]);
  const [further, own] = classes;
  expect({ ...further, metadata: { ...further?.metadata, name: handler } }).toEqual(own);
  expect(of(plan, ":RuntimeClass").map(({ name, options }) => [name, options.deleteBeforeReplace])).toEqual([
    ["runtime-classes-cc", true],
    [`runtime-classes-${handler}`, true],
  ]);
});

test("a name that a handler is current for is a class that no node serves, behind the policy that resolves it", async () => {
  const plan = await planOf([runtime("kata-go", { currentFor: ["contrast-cc"] })]);
  const handler = fixtureHandler("kata-go");
  const named = plan.filter(({ inputs }) => (inputs as Partial<Class>).metadata?.name === "contrast-cc");
  expect(named.map(({ type }) => type.split(":").at(-1)).sort()).toEqual([
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "RuntimeClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
  ]);
  const resolved = named.find(({ type }) => type.endsWith(":RuntimeClass"));
  expect(resolved?.inputs).toMatchObject({ handler: "contrast-unresolved" });
  // What it had, the admission plugin would put into pods before the policy acts.
  expect(Object.keys(resolved?.inputs ?? {})).not.toContain("overhead");
  expect(Object.keys(resolved?.inputs ?? {})).not.toContain("scheduling");
  const [policy] = inputsOf<{ spec: { variables: object[] } }>(plan, ":MutatingAdmissionPolicy");
  expect(policy?.spec.variables).toEqual([{ name: "handler", expression: `'${handler}'` }]);
  expect(inputsOf<Class>(plan, ":RuntimeClass").map(({ metadata }) => metadata.name)).toContain(handler);
});

describe("settings of a runtime", () => {
  test("are on the card, and charge pods what their guests begin with", async () => {
    const plan = await planOf([
      runtime("kata-go", {
        kata: { hypervisor: { default_memory: 1536 }, agent: { debug_console_enabled: true } },
        acknowledgedWeakenings: ["agent.debug_console_enabled"],
      }),
    ]);
    const [card] = inputsOf<{ runtimes: { handler: string; settings: string[]; weakened: string[] }[] }>(
      plan,
      "ContrastRuntime",
    );
    expect(card?.runtimes[0]).toMatchObject({
      handler: expect.stringMatching(/^contrast-insecure-metal-qemu-snp-[0-9a-f]{8}$/),
      settings: [expect.stringMatching(/^hypervisor\.default_memory is 1536: /)],
      weakened: [expect.stringMatching(/^agent\.debug_console_enabled is true: everybody who is root on the host/)],
    });
    const [plain] = inputsOf<Class>(await planOf([runtime("kata-go")]), ":RuntimeClass");
    const [own] = inputsOf<Class>(plan, ":RuntimeClass");
    const mebibytes = (one: Class | undefined) => Number.parseInt(one?.overhead.podFixed.memory ?? "", 10);
    expect(mebibytes(own) - mebibytes(plain)).toBe(1536 - 512);
  });

  test.each([
    ["kata-go", { default_memory: 1536 }, 1024],
    ["kata-rs", { overhead_memory: 1536 }, 1024],
    ["kata-rs", { default_memory: 1536 }, 0],
    ["kata-rs", { overhead_memory: 256, default_memory: 1536 }, -256],
  ])("with %s and %j, pods are charged %i MiB more", async (fixture, hypervisor, more) => {
    const charged = async (changes: Partial<RuntimeArgs>) => {
      const [first] = inputsOf<Class>(await planOf([runtime(fixture, changes)]), ":RuntimeClass");
      return Number.parseInt(first?.overhead.podFixed.memory ?? "", 10);
    };
    expect((await charged({ kata: { hypervisor } })) - (await charged({}))).toBe(more);
  });

  test("an overhead of one's own stays", async () => {
    const plan = await planOf([
      runtime("kata-go", { kata: { hypervisor: { default_memory: 1536 } }, overhead: { memory: "3Gi" } }),
    ]);
    expect(inputsOf<Class>(plan, ":RuntimeClass")[0]?.overhead.podFixed.memory).toBe("3Gi");
  });

  test("that are wrong are named by their place", async () => {
    await expect(planOf([runtime("kata-go", { kata: { agent: { dial_timout: 1 }, runtim: {} } })])).rejects.toThrow(
      "groups[0].runtimes[0].kata.runtim: is not a known key. Allowed here: hypervisor, agent, runtime. Did you mean runtime?",
    );
    await expect(planOf([runtime("kata-go", { kata: { agent: { dial_timout: 1 } } })])).rejects.toThrow(
      "groups[0].runtimes[0].kata.agent.dial_timout: is no key that Kata 4.1.0 (kata-go) knows in [agent]: did you mean dial_timeout?",
    );
  });
});

describe("what guests are told about registries", () => {
  const credentials = JSON.stringify({ auths: { "registry.example": { auth: "dTpw" } } });
  const guestRegistry = { proxy: { https: "http://p.example:3128" }, credentials };
  interface Pod {
    spec: {
      template: {
        spec: {
          containers: { args: string[]; volumeMounts: { name: string; readOnly?: boolean }[] }[];
          volumes: { name: string; secret?: { secretName: string } }[];
        };
      };
    };
  }

  test("Contrast's read it on the node: a Secret that the installers have, and the spec says only where it goes", async () => {
    const plan = await planOf([runtime("contrast-go")], { guestRegistry });
    const [secret] = inputsOf<{ data: { secret: Record<string, string> } }>(plan, ":Secret");
    const text = Buffer.from(secret?.data.secret["contrast-imagepuller.toml"] ?? "", "base64").toString();
    expect(text).toContain('[registries."registry.example."]\nauth = "dTpw"');
    const [pod] = inputsOf<Pod>(plan, ":DaemonSet").map(({ spec }) => spec.template.spec);
    expect(pod?.volumes).toContainEqual({ name: "guest-registry", secret: { secretName: "contrast-guest-registry" } });
    expect(pod?.containers[0]?.args.slice(-2)).toEqual([
      "--guest-registry",
      "/etc/contrast-guest-registry/contrast-imagepuller.toml",
    ]);
    const shown = JSON.stringify(plan, (key, value) =>
      key === "secret" && value?.secretName === undefined ? "" : value,
    );
    expect(shown).not.toContain("dTpw");
    expect(shown).toContain("etc/host-config/contrast-imagepuller.toml");
  });

  test("upstream's nodes and installers stay as they are", async () => {
    const registry = { proxy: guestRegistry.proxy };
    const [plain, told] = [
      await planOf([runtime("kata-go")]),
      await planOf([runtime("kata-go")], { guestRegistry: registry }),
    ];
    expect(told).toEqual(plain);
    await expect(planOf([runtime("kata-go")], { guestRegistry })).rejects.toThrow(
      "guestRegistry.credentials: [secret] reaches Contrast's guests only",
    );
  });

  test("workloads of upstream's guests have it in their initdata, those of Contrast's not", async () => {
    const app = `registry.example.com/app@sha256:${"a".repeat(64)}`;
    const initdataOf = async (fixture: string) => {
      let template: unknown;
      const args: ConfidentialWorkloadArgs = {
        platform: "metal-qemu-snp",
        manifest: fixtureManifest(fixture),
        template: {
          spec: { containers: [{ name: "web", image: app, resources: { limits: { cpu: "1", memory: "1Gi" } } }] },
        },
        initdata: { algorithm: "sha256", data: { "policy.rego": "package agent_policy\n" } },
        guestRegistry,
      };
      await record(() => {
        new ConfidentialWorkload("web", args).template.apply((value) => {
          template = value;
        });
      });
      const { annotations } = (template as { metadata: { annotations: Record<string, string> } }).metadata;
      return decodeInitdata(annotations[initdataAnnotation] ?? "");
    };
    expect(await initdataOf("kata-go")).toContain('https_proxy = "http://p.example:3128"');
    expect(await initdataOf("kata-go")).not.toContain("dTpw");
    expect(await initdataOf("contrast-go")).not.toContain("cdh.toml");
  });
});
