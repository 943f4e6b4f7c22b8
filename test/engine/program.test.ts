import { mkdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { apiClient } from "../../node-installer/kubernetes/api.ts";
import { readPreview } from "../../review/preview/preview.ts";
import { summarize } from "../../review/summary/summary.ts";
import { installerName, systemNamespace } from "../../runtime/names.ts";
import { fixtureAdvisories, fixtureHandler } from "../unit/runtime/fixtures.ts";
import { type ApiServer, startApiServer } from "./api-server.ts";
import type { EngineProject } from "./harness.ts";
import { type Configuration, configure, fixture, image, operations, programProject } from "./program.ts";

/*
 * This repository's own program under the real engine, against a real API server without nodes: which operations the
 * engine plans after an edit of a stack's file.
 */

let server: ApiServer;
let project: EngineProject;

beforeAll(async () => {
  server = await startApiServer();
});
afterAll(async () => {
  await server?.stop();
});

test("a local cluster is updated from its network alone, and the refusal says how", async () => {
  const local = await programProject("elsewhere");
  await configure(local, "elsewhere", {
    cluster: { kind: "local" },
    installerImage: image("a"),
    groups: { workers: { distribution: "containerd", nodes: { selector: { pool: "snp" } }, runtimes: [] } },
  });
  const { code, stdout } = await local.up();
  expect(code).not.toBe(0);
  expect(stdout).toContain("update it with npm run pulumi -- up --stack elsewhere");
  expect((await local.resources()).filter(({ type }) => type !== "pulumi:pulumi:Stack")).toEqual([]);
  await local.remove();
});

describe("a stack on a cluster", () => {
  const stack = "edits";
  const runtime = (name = "contrast-go") => ({
    platform: "metal-qemu-snp",
    payload: fixture(name),
    acknowledgedAdvisories: fixtureAdvisories[name] ?? [],
  });
  const group = (changes: object = {}) => ({
    distribution: "containerd",
    nodes: { selector: { "example.com/pool": "snp" } },
    runtimes: [runtime()],
    minimumNodes: 0,
    ...changes,
  });
  const configuration = (changes: object = {}, rest: Configuration = {}): Configuration => ({
    cluster: { kind: "kubeconfig", name: "test" },
    installerImage: image("a"),
    groups: { workers: group(changes) },
    ...rest,
  });
  const [old, next, rs] = ["contrast-go", "contrast-go-next", "kata-rs"].map((name) => fixtureHandler(name));
  const installer = "runtime-workers";

  /** Every change of a group's spec means new content, pods that see it, and a rollout that waits for it. */
  const respec = [
    `create ConfigMap ${installer}-SPEC`,
    `delete ConfigMap ${installer}-SPEC`,
    `update Command runtime-workers-rollout`,
    `update ContrastRuntime runtime`,
    `update DaemonSet ${installer}`,
    `update NodeInstaller runtime-workers`,
    `update RuntimeClasses runtime-classes`,
  ];

  beforeAll(async () => {
    project = await programProject(stack);
    const file = join(project.home, "kubeconfig");
    await writeFile(file, server.kubeconfig);
    project.env.KUBECONFIG = file;
    await configure(project, stack, configuration());
    await project.mustWork(project.up());
  });
  afterAll(async () => {
    await configure(project, stack, configuration());
    await project.mustWork(project.destroy());
    expect(
      await server.kubectl(
        "get",
        "runtimeclass,daemonset,configmap",
        "-A",
        "-l",
        "app.kubernetes.io/part-of=contrast-runtime",
        "-o",
        "name",
      ),
    ).toBe("");
    await project.remove();
  });

  test("has no changes if nothing changed, also after a refresh", async () => {
    await configure(project, stack, configuration());
    await project.mustWork(project.preview("--expect-no-changes"));
    await project.mustWork(project.refresh("--expect-no-changes"));
    await project.mustWork(project.up("--expect-no-changes"));
  });

  test("has no changes on another machine, where the kubeconfig is somewhere else", async () => {
    const { KUBECONFIG: here, HOME: home } = project.env;
    const elsewhere = join(project.home, "elsewhere");
    await mkdir(join(elsewhere, ".kube"), { recursive: true });
    await writeFile(join(elsewhere, "admin.conf"), server.kubeconfig);
    await rename(here ?? "", join(elsewhere, ".kube", "config"));
    project.env.KUBECONFIG = join(elsewhere, "admin.conf");
    await project.mustWork(project.preview("--expect-no-changes"));
    delete project.env.KUBECONFIG;
    project.env.HOME = elsewhere;
    await project.mustWork(project.preview("--expect-no-changes"));
    expect(await project.exported()).not.toContain(project.home);
    await rename(join(elsewhere, ".kube", "config"), here ?? "");
    Object.assign(project.env, { KUBECONFIG: here, HOME: home });
  });

  const edits: [string, Configuration, string[]][] = [
    [
      "a payload added",
      configuration({ runtimes: [runtime(), runtime("contrast-go-next")] }),
      [...respec, `create RuntimeClass runtime-classes-${next}`],
    ],
    [
      "a flavour added",
      configuration({ runtimes: [runtime(), runtime("kata-rs")] }),
      [...respec, `create RuntimeClass runtime-classes-${rs}`],
    ],
    [
      "a payload edited in place",
      configuration({ runtimes: [runtime("contrast-go-next")] }),
      [...respec, `create RuntimeClass runtime-classes-${next}`, `delete RuntimeClass runtime-classes-${old}`],
    ],
    [
      "the last payload removed",
      configuration({ runtimes: [] }),
      [...respec, `delete RuntimeClass runtime-classes-${old}`],
    ],
    [
      "another overhead",
      configuration({ runtimes: [{ ...runtime(), overhead: { memory: "1Gi" } }] }),
      [`update RuntimeClass runtime-classes-${old}`, "update RuntimeClasses runtime-classes"],
    ],
    [
      "another image",
      configuration({}, { installerImage: image("b") }),
      [
        "update Command runtime-workers-rollout",
        `update DaemonSet ${installer}`,
        "update NodeInstaller runtime-workers",
      ],
    ],
    [
      "other nodes",
      configuration({ nodes: { selector: { "example.com/pool": "other" } } }),
      [
        "update Command runtime-workers-rollout",
        `update DaemonSet ${installer}`,
        "update NodeInstaller runtime-workers",
      ],
    ],
    [
      "a dead node named",
      configuration({ ignoreNodes: ["node-7"] }),
      ["update Command runtime-workers-rollout", `update DaemonSet ${installer}`],
    ],
    [
      "nodes left as they are at the end",
      configuration({ onDestroy: "leave" }),
      [
        "update Command runtime-workers-rollout",
        "update Command runtime-workers-uninstall",
        "update NodeInstaller runtime-workers",
      ],
    ],
  ];
  test.each(edits)("%s", async (_name, edited, expected) => {
    await configure(project, stack, edited);
    expect(await operations(project)).toEqual(expected.toSorted());
  });

  test("another priority class means new pods to wait for", async () => {
    await configure(project, stack, configuration({ priorityClass: "system-cluster-critical" }));
    expect(await operations(project)).toEqual([
      "update Command runtime-workers-rollout",
      `update DaemonSet ${installer}`,
    ]);
  });

  test("an update waits for the way back from a failed rollout, too", async () => {
    await configure(project, stack, configuration({ runtimes: [runtime("contrast-go-next")], minimumNodes: 1 }));
    expect((await project.up()).code).not.toBe(0);
    await configure(project, stack, configuration());
    const planned = await operations(project);
    expect(planned).toContain("update Command runtime-workers-rollout");
    expect(planned).toContain(`update DaemonSet ${installer}`);
    await project.mustWork(project.up());
    await project.mustWork(project.preview("--expect-no-changes"));
  });

  describe("a renamed group", () => {
    const groups = (name: string, changes: object = {}) =>
      configure(project, stack, configuration({}, { groups: { [name]: group(changes) } }));

    test("whose former name is given is the same group: nothing is uninstalled, there and back", async () => {
      await groups("renamed", { formerly: "workers" });
      const planned = await operations(project);
      expect(planned).toEqual(
        expect.arrayContaining([
          "replace DaemonSet runtime-renamed",
          "update Command runtime-renamed-rollout",
          "update Command runtime-renamed-uninstall",
          "update NodeInstaller runtime-renamed",
        ]),
      );
      expect(planned.filter((line) => /^(create|delete) (?!ConfigMap)/.test(line))).toEqual([]);
      const { stdout } = await project.mustWork(project.up());
      expect(stdout).not.toContain("uninstalled");
      await project.mustWork(project.preview("--expect-no-changes"));
      // The old installers are gone before the new ones come.
      const { items } = await apiClient(server.admin).get<{ items: { metadata: { name: string } }[] }>(
        `/apis/apps/v1/namespaces/${systemNamespace}/daemonsets`,
      );
      expect(items.map(({ metadata }) => metadata.name)).toEqual([installerName("renamed")]);

      await groups("workers", { formerly: "renamed" });
      expect((await operations(project)).filter((line) => /^(create|delete) (?!ConfigMap)/.test(line))).toEqual([]);
      await project.mustWork(project.up());
      await groups("workers");
      await project.mustWork(project.up());
    });

    test("is told from the same preview", async () => {
      await groups("renamed", { formerly: "workers" });
      const { stdout } = await project.mustWork(project.preview("--json"));
      const { sections } = summarize(readPreview(stdout));
      const told = sections.flatMap(({ title, lines }) => lines.map(({ text }) => `${title}: ${text}`));
      expect(told).toContain("Nodes: Group `workers` is renamed to `renamed`.");
      expect(told.filter((line) => line.startsWith("Restarts"))).toEqual([
        "Restarts of containerd: Group `renamed`: nothing that containerd reads changes; it does not restart.",
      ]);
    });

    test("whose former name is not given is another one: it is created and the old one is uninstalled", async () => {
      await groups("renamed");
      const planned = await operations(project);
      expect(planned).toContain("delete Command runtime-workers-uninstall");
      expect(planned).toContain("create Command runtime-renamed-rollout");
      expect(planned.filter((line) => line.startsWith("replace "))).toEqual([]);
    });
  });

  test("a mistake ends the preview with nothing but its message", async () => {
    await configure(project, stack, configuration({ distribution: "containrd" }));
    const { code, stdout, stderr } = await project.preview();
    expect(code).not.toBe(0);
    const text = stdout + stderr;
    expect(text).toContain('groups.workers.distribution.name: "containrd" is not allowed.');
    expect(text).not.toContain("at file:");
    expect(text).not.toContain("unhandled");
  });
});

describe("an AKS stack, on the stand-in for Azure", () => {
  const stack = "aks";
  const configuration = (pool: object, cluster: object = { retiredService: "acknowledged" }): Configuration => ({
    cluster: {
      kind: "aks",
      subscriptionId: "00000000-0000-0000-0000-000000000000",
      resourceGroup: "rg",
      name: "aks",
      ...cluster,
    },
    installerImage: image("a"),
    groups: {
      cc: {
        distribution: "aks",
        nodes: { pool: { name: "cc", ...pool } },
        runtimes: [
          {
            platform: "aks-clh-snp",
            payload: fixture("contrast-aks"),
            acknowledgedAdvisories: fixtureAdvisories["contrast-aks"],
          },
        ],
        minimumNodes: 0,
      },
    },
  });
  const pool = { vmSize: "Standard_DC4as_cc_v5", count: 2 };
  let aks: EngineProject;

  beforeAll(async () => {
    aks = await programProject(stack);
    const file = join(aks.home, "kubeconfig");
    await writeFile(file, server.kubeconfig);
    aks.env.AZURE_STAND_IN_KUBECONFIG = file;
    await configure(aks, stack, configuration(pool));
    await aks.mustWork(aks.up());
  });
  afterAll(async () => {
    await aks.mustWork(aks.destroy());
    await aks.remove();
  });

  test("has no changes if nothing changed", async () => {
    await aks.mustWork(aks.up("--expect-no-changes"));
  });

  test.each([
    ["more nodes are an update in place", { ...pool, count: 3 }, "update AgentPool runtime-cc-pool"],
    [
      "another size replaces the pool",
      { ...pool, vmSize: "Standard_DC8as_cc_v5" },
      "replace AgentPool runtime-cc-pool",
    ],
    ["other zones replace the pool", { ...pool, zones: ["1"] }, "replace AgentPool runtime-cc-pool"],
    ["labels are an update in place", { ...pool, labels: { a: "b" } }, "update AgentPool runtime-cc-pool"],
  ])("%s", async (_name, edited, expected) => {
    await configure(aks, stack, configuration(edited));
    expect(await operations(aks)).toEqual([expected, "update AksCocoNodePool runtime-cc-pool"].sort());
    await configure(aks, stack, configuration(pool));
  });

  test("without credentials the user is told what to do, in one sentence", async () => {
    const { AZURE_STAND_IN_KUBECONFIG: kubeconfig = "", ...others } = aks.env;
    aks.env.AZURE_STAND_IN_KUBECONFIG = "";
    const { code, stdout, stderr } = await aks.preview();
    Object.assign(aks.env, others, { AZURE_STAND_IN_KUBECONFIG: kubeconfig });
    expect(code).not.toBe(0);
    const text = stdout + stderr;
    expect(text).toMatch(
      /Azure returned no user kubeconfig for the cluster aks in the resource group rg: there is no cluster aks/,
    );
    expect(text).toContain('Log in with "az login"');
    expect(text).not.toMatch(/^\s+at /m);
    expect(text).not.toContain("nhandled");
  });

  test("scaling without saying that the service is retired is a mistake", async () => {
    await configure(aks, stack, configuration({ ...pool, count: 3 }, {}));
    const { code, stdout, stderr } = await aks.preview();
    expect(code).not.toBe(0);
    expect(stdout + stderr).toContain("Microsoft retired that service and its node images in March 2026");
    await configure(aks, stack, configuration(pool));
  });
});
