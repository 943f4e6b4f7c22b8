import * as pulumi from "@pulumi/pulumi";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { AksCocoNodePool } from "../../../components/aks-coco-node-pool.ts";
import { ContrastRuntime, type NodeGroupArgs } from "../../../components/contrast-runtime.ts";
import { deriveRuntime } from "../../../measure/runtime.ts";
import { type Recorded, record } from "../../recorded-program.ts";
import { fixtureAdvisories, fixtureHandler, fixtureManifest } from "../runtime/fixtures.ts";
import { find, group, image, podOf, register } from "./registered.ts";

describe("a runtime on two groups", () => {
  const both = [
    group("metal-qemu-snp", "contrast-go", { nodeNames: ["a"] }),
    group("metal-qemu-snp", "contrast-go", { nodeNames: ["b"], group: "others" }),
    group("metal-qemu-tdx", "contrast-go", { nodeNames: ["c"], group: "tdx" }),
  ];
  let plan: Recorded[];
  beforeAll(async () => {
    plan = await register(both);
  }, 60_000);

  test("has one RuntimeClass per handler and one installer per group", () => {
    const names = (type: string) => plan.filter((resource) => resource.type.endsWith(type)).map(({ name }) => name);
    expect(names(":RuntimeClass")).toEqual([
      `runtime-classes-${fixtureHandler("contrast-go", "metal-qemu-snp")}`,
      `runtime-classes-${fixtureHandler("contrast-go", "metal-qemu-tdx")}`,
    ]);
    expect(names(":DaemonSet")).toEqual(["runtime-others", "runtime-tdx", "runtime-workers"]);
    expect(names(":Namespace")).toHaveLength(1);
  });

  test("lets no pod onto a node that does not serve it", () => {
    const { handler, scheduling } = find(plan, ":RuntimeClass", "snp").inputs as {
      handler: string;
      scheduling: object;
    };
    expect(scheduling).toEqual({ nodeSelector: { [`runtime.contrast.edgeless.systems/${handler}`]: "true" } });
  });

  test("charges and schedules upstream's GPU guests as upstream does", async () => {
    const made = await register([
      group("metal-qemu-snp-gpu", "kata-go", { nodeNames: ["a"] }),
      group("metal-qemu-tdx-gpu", "contrast-go", { nodeNames: ["b"], group: "others" }),
    ]);
    const classOf = (word: string) => find(made, ":RuntimeClass", word).inputs as Record<string, unknown>;
    expect(classOf("snp-gpu")).toMatchObject({
      overhead: { podFixed: { memory: "10240Mi" } },
      scheduling: { nodeSelector: { "nvidia.com/cc.ready.state": "true" } },
    });
    expect(classOf("tdx-gpu")).toMatchObject({ overhead: { podFixed: { memory: "1194Mi" } } });
    expect(JSON.stringify(classOf("tdx-gpu"))).not.toContain("nvidia.com");
  });
});

describe("a payload with known holes", () => {
  const refused = (acknowledgedAdvisories: string[]) => {
    const runtimes = [
      { platform: "metal-qemu-snp" as const, manifest: fixtureManifest("contrast-go"), acknowledgedAdvisories },
    ];
    return () => register([group("metal-qemu-snp", "contrast-go", { runtimes })]);
  };
  const cardOf = async (fixture: string) =>
    (await register([group("metal-qemu-snp", fixture)])).find(({ type }) => type.endsWith(":ContrastRuntime"))?.inputs
      .runtimes as Record<string, unknown>[];

  test("is refused unless each is acknowledged, before anything is registered", async () => {
    await expect(refused([])).rejects.toThrow(
      /^The arguments of ContrastRuntime runtime cannot be used:\n {2}groups\[0\]\.runtimes\[0\]\.manifest: payload fixture-contrast-go holds Kata 3\.31\.0, which has known holes\. GHSA-fmg6-v47x-52wr .*add acknowledgedAdvisories: \["GHSA-fmg6-v47x-52wr"\] to the runtime\.$/,
    );
    await expect(refused(["CVE-2026-50540"])).rejects.toThrow(/has known holes\. GHSA-fmg6-v47x-52wr/);
    await expect(refused(["CVE-2026-77176", "CVE-2026-41326"])).rejects.toThrow(
      'groups[0].runtimes[0].acknowledgedAdvisories[1]: "CVE-2026-41326" does not apply to Kata 3.31.0',
    );
  });

  test("the review card names what is acknowledged and what cannot be used here", async () => {
    const [card] = await cardOf("contrast-go");
    expect(card).toMatchObject({
      kataVersion: "3.31.0",
      acknowledged: [expect.stringMatching(/^GHSA-fmg6-v47x-52wr \(CVE-2026-77176\): The host mounts/)],
    });
    expect(card?.closed).toContain(
      "GHSA-mp2j-xm59-qfgw (CVE-2026-50540): containerd hands that annotation to no runtime of this product.",
    );
    const [fixed] = await cardOf("kata-rs");
    expect(fixed).not.toHaveProperty("acknowledged");
  });
});

describe("an installer", () => {
  test("has no memory limit, and its spec in a ConfigMap of that content", async () => {
    const plan = await register([group("local", "local")]);
    expect(podOf(plan).containers[0]?.resources).not.toHaveProperty("limits");
    const map = find(plan, ":ConfigMap").inputs as { metadata: { name: string }; data: Record<string, string> };
    const other = find(await register([group("local", "local", { atOnce: 2 })]), ":ConfigMap").inputs as typeof map;
    expect(map.metadata.name).toMatch(/^contrast-installer-workers-[0-9a-f]{8}$/);
    expect(other.metadata.name).not.toBe(map.metadata.name);
    expect(podOf(plan).volumes).toContainEqual({ name: "spec", configMap: { name: map.metadata.name } });
  });

  test("is the same in whatever order the stack's file lists things", async () => {
    const runtimes = ["contrast-go", "kata-rs"].map((fixture) => ({
      platform: "metal-qemu-snp" as const,
      manifest: fixtureManifest(fixture),
      acknowledgedAdvisories: fixtureAdvisories[fixture] ?? [],
    }));
    const tolerations = ["b", "a"].map((key) => ({ key, operator: "Exists", value: undefined }));
    const nodeNames = ["n2", "n1"];
    const [one, other] = [
      { runtimes, tolerations, nodeNames },
      { runtimes: runtimes.toReversed(), tolerations: tolerations.toReversed(), nodeNames: nodeNames.toReversed() },
    ].map((lists) => register([group("metal-qemu-snp", "contrast-go", lists)]));
    expect(await other).toEqual(await one);
  });

  test("runs on named nodes by their names, each an alternative", async () => {
    const plan = await register([group("metal-qemu-snp", "contrast-go", { nodeNames: ["b", "a"] })]);
    const term = (name: string) => ({ matchFields: [{ key: "metadata.name", operator: "In", values: [name] }] });
    expect(podOf(plan).affinity).toEqual({
      nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [term("a"), term("b")] } },
    });
  });

  test("starts the snapshotter of an AKS runtime's payload, one per handler, where containerd looks for it", async () => {
    const plan = await register([group("aks-clh-snp", "contrast-aks", { distribution: { name: "aks" } })]);
    const { handler, containerd } = deriveRuntime({
      platform: "aks-clh-snp",
      manifest: fixtureManifest("contrast-aks"),
    });
    const pod = podOf(plan);
    expect(pod.containers[1]).toMatchObject({
      name: `tardev-${handler.slice(-8)}`,
      image,
      command: [
        "/payloads/fixture-contrast-aks/bin/tardev-snapshotter",
        `/var/lib/containerd/io.containerd.snapshotter.v1.tardev-${handler}`,
        `/host${containerd.proxyPlugin?.address}`,
        "/host/run/containerd/containerd.sock",
      ],
    });
    expect(pod.volumes).toContainEqual({
      name: "containerd-data",
      hostPath: { path: "/var/lib/containerd", type: "Directory" },
    });
    expect(pod.nodeSelector).toMatchObject({ "kubernetes.azure.com/kata-cc-isolation": "true" });
  });

  test("without a snapshotter all pods are replaced at once, else atOnce of them, not counting nodes that are ignored", async () => {
    const strategyOf = async (...args: Parameters<typeof group>) => {
      const { inputs } = find(await register([group(...args)]), ":DaemonSet");
      return (inputs as { spec: { updateStrategy: { rollingUpdate: unknown } } }).spec.updateStrategy.rollingUpdate;
    };
    const lists = { atOnce: 3, ignoreNodes: ["dead"] };
    expect(await strategyOf("metal-qemu-snp", "contrast-go", lists)).toEqual({ maxUnavailable: "100%" });
    const aks = { distribution: { name: "aks" }, ...lists } as const;
    expect(await strategyOf("aks-clh-snp", "contrast-aks", aks)).toEqual({ maxUnavailable: 4 });
  });

  test("pulls with a secret in the form in which the API server keeps it", async () => {
    const pullSecret = '{"auths":{}}';
    const plan = await record(
      () => new ContrastRuntime("runtime", { image, groups: [group("local", "local")], pullSecret }),
    );
    const { data } = find(plan, ":Secret").inputs as { data: unknown };
    expect(data).toEqual({ secret: { ".dockerconfigjson": Buffer.from(pullSecret).toString("base64") } });
    expect(podOf(plan).imagePullSecrets).toEqual([{ name: "contrast-installer-pull" }]);
  });

  test("keeps the kubeconfig a secret wherever it goes", async () => {
    const plan = await register([group("local", "local")], "the-kubeconfig");
    const holders = plan.filter(({ inputs }) => JSON.stringify(inputs).includes("the-kubeconfig"));
    expect(holders.map(({ name }) => name)).toEqual(["runtime-workers-rollout", "runtime-workers-uninstall"]);
    for (const { inputs } of holders) {
      expect(inputs.environment).toMatchObject({ KUBECONFIG_CONTENT: { secret: "the-kubeconfig" } });
    }
  });
});

test("a payload that cannot serve a platform is a user's error, which the engine shows without a stack", () => {
  const groups = [group("metal-qemu-snp", "contrast-aks")];
  expect(() => new ContrastRuntime("runtime", { image, groups })).toThrow(
    expect.objectContaining({
      __pulumiRunError: true,
      message: expect.stringContaining("groups[0].runtimes[0].manifest: cannot be used: Kata 3.2.0.azl2 is too old"),
    }),
  );
});

test("a right exists only while what confines it does: each binding of RBAC is made after every policy", async () => {
  const plan = await register([group("local", "local")]);
  const ofType = (pattern: RegExp) => plan.filter(({ type }) => pattern.test(type));
  const policies = ofType(/:ValidatingAdmissionPolicy(Binding)?$/);
  const rights = ofType(/:(ClusterRoleBinding|RoleBinding)$/);
  expect(policies).toHaveLength(6);
  expect(rights).toHaveLength(3);
  for (const right of rights) {
    const before = right.options.dependsOn as string[];
    for (const { name } of policies) expect(before.filter((urn) => urn.endsWith(name)).length).toBeGreaterThan(0);
  }
});

describe("rollout and uninstall", () => {
  test("have no triggers, and uninstall has one verb whose text no edit changes", async () => {
    const before = await register([group("local", "local")]);
    const after = await register([
      group("local", "local", { atOnce: 3, minimumNodes: 4, ignoreNodes: ["x"], stallTimeout: 5 }),
    ]);
    const uninstall = find(before, "local:Command", "uninstall");
    expect(Object.keys(uninstall.inputs).sort()).toEqual(["delete", "environment", "interpreter"]);
    expect(find(after, "local:Command", "uninstall").inputs).toEqual(uninstall.inputs);
    const rollout = find(before, "local:Command", "rollout").inputs;
    expect(rollout).not.toHaveProperty("triggers");
    // A large fleet's rollout prints more than a variable may hold: the next command would not even start.
    expect(rollout.addPreviousOutputInEnv).toBe(false);
    expect(find(after, "local:Command", "rollout").inputs.create).toMatch(
      /--minimum-nodes 4 --stall-timeout 5 --skip-nodes x$/,
    );
  });

  test("uninstall is created before the rollout, deleted before the installers, and leaves nodes as they are if told to", async () => {
    const plan = await register([group("local", "local", { onDestroy: "leave" })]);
    const daemonSet = "kubernetes:apps/v1:DaemonSet runtime-workers";
    const uninstall = find(plan, "local:Command", "uninstall");
    expect(uninstall.options.dependsOn).toEqual([daemonSet]);
    expect(uninstall.inputs.delete).toMatch(/^uninstall .* --group workers --leave$/);
    expect(find(plan, "local:Command", "rollout").inputs.create).toMatch(/ --nodes-may-leave$/);
    expect(find(plan, "local:Command", "rollout").options.dependsOn).toContain(
      "command:local:Command runtime-workers-uninstall",
    );
  });
});

describe("hosts", () => {
  const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
  const host = (name: string) => ({ name, address: `${name}.example.com`, port: 22, hostKey });
  const hosts = (changes: Partial<NodeGroupArgs> = {}, user = "root") =>
    group("metal-qemu-snp", "contrast-go", {
      ssh: { hosts: [host("n2"), host("n1")], user, privateKey: "the-key", joinCommand: "the-join-command" },
      ...changes,
    });

  test("are reached with their host keys checked; what is secret stays so", async () => {
    const plan = await register([hosts()]);
    const join = find(plan, "remote:Command", "n1-join");
    expect(join.inputs.connection).toMatchObject({ secret: { host: "n1.example.com", hostKey } });
    expect(join.inputs.stdin).toEqual({ secret: "the-join-command" });
    const shown = JSON.stringify(plan, (key, value) => (key === "secret" ? undefined : value));
    expect(shown).not.toContain("the-key");
    expect(shown).not.toContain("the-join-command");
    expect(find(plan, ":BareMetalNodes").inputs.hosts).toMatchObject([{ name: "n1" }, { name: "n2" }]);
  });

  test("a dead one is left alone, with a warning: what is registered stays, the rest is registered without a verb", async () => {
    const said: string[] = [];
    vi.spyOn(pulumi.log, "warn").mockImplementation(async (message) => {
      said.push(message);
    });
    const plan = await register([hosts({ ignoreNodes: ["n2"] })]);
    for (const concern of ["prepare", "check", "join"]) {
      const { inputs, options } = find(plan, "remote:Command", `n2-${concern}`);
      expect(Object.keys(inputs).sort()).toEqual(["addPreviousOutputInEnv", "connection"]);
      expect(options).toMatchObject({ ignoreChanges: ["*"], retainOnDelete: true });
    }
    const { inputs, options } = find(plan, "remote:Command", "n1-prepare");
    expect(inputs).toHaveProperty("create");
    expect(options).not.toHaveProperty("retainOnDelete");
    expect(find(plan, ":BareMetalNodes").inputs.hosts).toMatchObject([{}, { skipped: "named in ignoreNodes" }]);
    expect(said).toEqual([
      expect.stringMatching(/^Host n2 is skipped: it is named in ignoreNodes\. Nothing is run on it/),
    ]);
  });

  test("a user other than root becomes root without a password", async () => {
    const plan = await register([hosts({}, "admin")]);
    expect(find(plan, "remote:Command", "n1-check").inputs.create).toBe("sudo -n sh -c 'sh -s'");
  });
});

describe("a pool for confidential containers", () => {
  const pool = { resourceGroup: "rg", cluster: "c", pool: "cc", vmSize: "Standard_DC4as_cc_v5", count: 2 };
  const warnings = async (call: () => Record<string, unknown>) => {
    const said: string[] = [];
    const warn = vi.spyOn(pulumi.log, "warn").mockImplementation(async (message) => void said.push(message));
    const plan = await record(() => new AksCocoNodePool("pool", pool), { call });
    warn.mockRestore();
    return { plan, said };
  };

  test("asks for the subscription's feature but does not create it, because the provider refuses to create what Azure always answers for", async () => {
    const { plan, said } = await warnings(() => ({ properties: { state: "Registered" } }));
    expect(plan.map(({ type }) => type)).toEqual([
      "azure-native:containerservice:AgentPool",
      "contrast-runtime:index:AksCocoNodePool",
    ]);
    expect(said).toEqual([]);
  });

  test("is the same pool in whatever order its zones are listed: another order would replace it", async () => {
    const [one, other] = [
      ["1", "2", "3"],
      ["3", "1", "2"],
    ].map((zones) =>
      record(() => new AksCocoNodePool("pool", { ...pool, zones }), {
        call: () => ({ properties: { state: "Registered" } }),
      }),
    );
    expect(await other).toEqual(await one);
    expect(find(await (one ?? []), ":AgentPool").inputs.availabilityZones).toEqual(["1", "2", "3"]);
  });

  test.each([
    ["is not registered", () => ({ properties: { state: "NotRegistered" } }), "is NotRegistered: without it"],
    [
      "cannot be asked for",
      () => {
        throw new Error("no access");
      },
      "in an unknown state",
    ],
  ])("says what to do where it %s", async (_name, call, text) => {
    const { said } = await warnings(call);
    expect(said).toHaveLength(1);
    expect(said[0]).toContain(text);
    expect(said[0]).toContain(
      "az feature register --namespace Microsoft.ContainerService --name KataCcIsolationPreview",
    );
  });
});
