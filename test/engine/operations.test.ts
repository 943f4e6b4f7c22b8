import { existsSync, readFileSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { packageRoot } from "../../tools/files/project.ts";
import { check } from "../../tools/process/run.ts";
import { idOf, type KubernetesObject } from "../../tools/render/objects.ts";
import { fixtureAdvisories, fixtureHandler } from "../unit/runtime/fixtures.ts";
import { type ApiServer, startApiServer } from "./api-server.ts";
import type { EngineProject } from "./harness.ts";
import { type Configuration, configure, fixture, image, operations, programProject } from "./program.ts";

/*
 * What operators do besides editing a stack, with this repository's program, the real engine and a real API server without
 * nodes: they find out what others changed, import what exists, and render YAML for another tool to apply.
 */

const [old, next] = [fixtureHandler("contrast-go"), fixtureHandler("contrast-go-next")];
const system = "contrast-runtime-system";

const configuration = (cluster: object, payload = "contrast-go"): Configuration => ({
  cluster,
  installerImage: image("a"),
  groups: {
    workers: {
      distribution: "containerd",
      nodes: { selector: { "example.com/pool": "snp" } },
      runtimes: [
        {
          platform: "metal-qemu-snp",
          payload: fixture(payload),
          acknowledgedAdvisories: fixtureAdvisories[payload] ?? [],
        },
      ],
      minimumNodes: 0,
    },
  },
});
const inCluster = configuration({ kind: "kubeconfig", name: "test" });

let server: ApiServer;
let kubeconfig: string;
let project: EngineProject;

beforeAll(async () => {
  server = await startApiServer();
});
afterAll(async () => {
  await server?.stop();
});

async function newStack(stack: string, content: Configuration): Promise<void> {
  project = await programProject(stack);
  kubeconfig = join(project.home, "kubeconfig");
  await writeFile(kubeconfig, server.kubeconfig);
  project.env.KUBECONFIG = kubeconfig;
  await configure(project, stack, content);
}

/** The words of a process; [] once it has ended. */
function commandLine(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return [];
  }
}

/** The resource's URN and id in the stack's state. */
async function resource(type: string, name: string) {
  const found = (await project.resources()).find(
    ({ urn }) => urn.endsWith(`::${name}`) && urn.split("::").at(-2)?.split("$").at(-1) === type,
  );
  if (!found) throw new Error(`the stack has no ${type} ${name}`);
  return found;
}

describe("what somebody else changed", () => {
  beforeAll(async () => {
    await newStack("refresh", inCluster);
    await project.mustWork(project.up());
  });
  afterAll(async () => {
    await project.mustWork(project.destroy());
    await project.remove();
  });
  beforeEach(async () => {
    await project.mustWork(project.up());
  });

  test("refresh notices a deleted class, and an update creates it again", async () => {
    await server.kubectl("delete", "runtimeclass", old);
    const { stdout } = await project.mustWork(project.refresh());
    expect(stdout).toMatch(new RegExp(`RuntimeClass\\s+runtime-classes-${old}\\s+deleted`));
    expect(await operations(project)).toEqual([`create RuntimeClass runtime-classes-${old}`]);
  });

  test("refresh notices an edited DaemonSet, and an update that may overrule the editor restores it", async () => {
    const [name, field] = ["contrast-installer-workers", "/spec/template/spec/priorityClassName"];
    const edit = JSON.stringify([{ op: "replace", path: field, value: "system-cluster-critical" }]);
    await server.kubectl("patch", "daemonset", name, "-n", system, "--type=json", "-p", edit);
    expect((await project.refresh("--expect-no-changes")).code).not.toBe(0);
    await project.mustWork(project.refresh());

    const refused = await project.up();
    expect(refused.code).not.toBe(0);
    expect(refused.stdout + refused.stderr).toMatch(/conflict.*kubectl-patch/is);
    project.env.PULUMI_K8S_ENABLE_PATCH_FORCE = "true";
    await project.mustWork(project.up());
    delete project.env.PULUMI_K8S_ENABLE_PATCH_FORCE;
    const path = "jsonpath={.spec.template.spec.priorityClassName}";
    expect(await server.kubectl("get", "daemonset", name, "-n", system, "-o", path)).toBe("system-node-critical");
  });
});

test("an interrupt ends a rollout that waits, and leaves neither a process nor a lock", async () => {
  const waiting = configuration({ kind: "kubeconfig", name: "test" });
  const [workers] = Object.values(waiting.groups as Record<string, object>);
  await newStack("interrupt", { ...waiting, groups: { impatient: { ...workers, minimumNodes: 1 } } });
  const rollouts = async () =>
    (await readdir("/proc")).filter((pid) => {
      const words = /^\d+$/.test(pid) ? commandLine(pid) : [];
      return words.includes("contrast-runtime") && words.includes("rollout") && words.includes("impatient");
    });
  const { code } = await project.interrupted(
    async () => (await rollouts()).length > 0,
    "up",
    "--yes",
    "--skip-preview",
  );
  expect(code).not.toBe(0);
  expect(await rollouts()).toEqual([]);
  await project.mustWork(project.destroy());
  await project.remove();
});

describe("what exists already", () => {
  const scratch = async (name: string, object: object) => {
    const file = join(project.home, name);
    await writeFile(file, JSON.stringify(object));
    await server.kubectl("create", "-f", file);
  };

  test("a namespace and a class are imported, and the update goes on with them", async () => {
    await newStack("import", inCluster);
    await scratch("namespace.json", { apiVersion: "v1", kind: "Namespace", metadata: { name: system } });
    await scratch("class.json", {
      apiVersion: "node.k8s.io/v1",
      kind: "RuntimeClass",
      metadata: { name: old, labels: { "example.com/made-by": "hand" } },
      handler: old,
    });
    const uid = () => server.kubectl("get", "runtimeclass", old, "-o", "jsonpath={.metadata.uid}");
    const before = await uid();

    const failed = await project.up();
    expect(failed.code).not.toBe(0);
    expect(failed.stdout + failed.stderr).toContain("already exists");

    const provider = await resource("pulumi:providers:kubernetes", "kubernetes");
    const adopt = async (type: string, id: string, parentType: string, parent: string) => {
      const { urn } = await resource(`contrast-runtime:index:${parentType}`, parent);
      const words = ["--parent", `parent=${urn}`, "--provider", `kubernetes=${provider.urn}`];
      const quiet = ["--yes", "--skip-preview", "--protect=false", "--generate-code=false"];
      await project.mustWork(project.pulumi("import", type, id, id, ...words, ...quiet));
    };
    await adopt("kubernetes:core/v1:Namespace", system, "ContrastRuntime", "runtime");
    await adopt("kubernetes:node.k8s.io/v1:RuntimeClass", old, "RuntimeClasses", "runtime-classes");

    const planned = await operations(project);
    expect(planned).toContain("update Namespace runtime-namespace");
    expect(planned).toContain(`update RuntimeClass runtime-classes-${old}`);
    expect(planned.filter((line) => /^(delete|replace)/.test(line))).toEqual([]);
    await project.mustWork(project.up());
    expect(await uid()).toBe(before);
    await project.mustWork(project.preview("--expect-no-changes"));
    await project.mustWork(project.destroy());
    await project.remove();
  });
});

describe("manifests for another tool to apply", () => {
  const rendered = (payload?: string) => configuration({ kind: "yaml", directory: "manifests/prod" }, payload);
  const directory = () => join(project.directory, "manifests", "prod", "1-manifest");
  const objects = async () => {
    const files = (await readdir(directory())).sort();
    return await Promise.all(files.map(async (file) => parse(await readFile(join(directory(), file), "utf8"))));
  };
  const names = async () => (await objects()).map(({ kind, metadata }) => `${kind} ${metadata.name}`);

  beforeAll(async () => {
    await newStack("yaml", rendered());
    project.env.KUBECONFIG = "/nonexistent";
    await project.mustWork(project.up());
  });
  afterAll(() => project.remove());

  test("are all there, and nothing waits for nodes", async () => {
    const all = await names();
    for (const expected of [`Namespace ${system}`, `RuntimeClass ${old}`, "DaemonSet contrast-installer-workers"])
      expect(all).toContain(expected);
    expect((await project.resources()).map(({ type }) => type)).not.toContain("command:local:Command");
    const outputs = await project.outputs();
    expect(outputs).toMatchObject({ handlers: { workers: [old] } });
    expect(outputs).not.toHaveProperty("kubeconfig");
    await project.mustWork(project.preview("--expect-no-changes"));
  });

  test("are valid for a real API server", async () => {
    const namespace = (await readdir(directory())).find((file) => file.includes("-namespace-")) ?? "";
    await server.kubectl("apply", "-f", join(directory(), namespace));
    await server.kubectl("apply", "--server-side", "-f", directory());
    const daemonSet = await server.kubectl(
      "get",
      "daemonset",
      "contrast-installer-workers",
      "-n",
      system,
      "-o",
      "yaml",
    );
    expect(parse(daemonSet).spec.template.spec.containers[0].image).toBe(image("a"));
    await server.kubectl("delete", "-f", directory());
  });

  test("are also rendered without engine and state, and applied at the first attempt", async () => {
    const into = join(project.home, "rendered");
    const stack = join(project.directory, "Pulumi.yaml.yaml");
    const bin = join(packageRoot, "tools", "cli", "bin.mjs");
    await check(process.execPath, [bin, "render", "--stack", stack, "--output", into], { cwd: packageRoot });
    await server.kubectl("apply", "-k", into);
    const list: { resources: string[] } = parse(await readFile(join(into, "kustomization.yaml"), "utf8"));
    const own = await Promise.all(list.resources.map((file) => readFile(join(into, file), "utf8")));
    // Annotations are what only Argo CD or only Pulumi reads.
    const comparable = (all: KubernetesObject[]) =>
      new Map(
        all.map((object) => [idOf(object), { ...object, metadata: { ...object.metadata, annotations: undefined } }]),
      );
    expect(comparable(own.map((text) => parse(text)))).toEqual(comparable(await objects()));
    await server.kubectl("delete", "-k", into);
  });

  test("of a removed runtime are removed", async () => {
    await configure(project, "yaml", rendered("contrast-go-next"));
    await project.mustWork(project.up());
    const all = await names();
    expect(all).toContain(`RuntimeClass ${next}`);
    expect(all).not.toContain(`RuntimeClass ${old}`);
    expect(all.filter((name) => name.startsWith("ConfigMap "))).toHaveLength(1);
    await project.mustWork(project.destroy());
    expect(existsSync(directory()) ? await readdir(directory()) : []).toEqual([]);
  });
});
