import { readFileSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { packageRoot } from "../../tools/files/project.ts";
import { check, type RunResult } from "../../tools/process/run.ts";
import { shownWords } from "../shown-commands.ts";
import { fixtureAdvisories, fixtureHandler } from "../unit/runtime/fixtures.ts";
import { type ApiServer, startApiServer } from "./api-server.ts";
import { type EngineProject, engineProject } from "./harness.ts";
import { type Configuration, configure, fixture, image, operations, programProject } from "./program.ts";

/*
 * What operators do besides editing a stack, with this repository's program, the real engine and a real API server without
 * nodes: they find out what others changed, import what exists, and render YAML for another tool to apply.
 */

const old = fixtureHandler("contrast-go");
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
  beforeAll(() => newStack("refresh", inCluster));
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
    const manager = "--field-manager=somebody";
    await server.kubectl("patch", "daemonset", name, "-n", system, "--type=json", "-p", edit, manager);
    expect((await project.refresh("--expect-no-changes")).code).not.toBe(0);
    await project.mustWork(project.refresh());

    const refused = await project.up();
    expect(refused.code).not.toBe(0);
    expect(refused.stdout + refused.stderr).toMatch(/conflict.*somebody/is);
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
  const { code, stdout, stderr } = await project.interrupted(
    async () => (await rollouts()).length > 0,
    "up",
    "--yes",
    "--skip-preview",
  );
  expect(code).not.toBe(0);
  expect(await rollouts()).toEqual([]);
  // By the signal, and not because it gave up by itself, after the stack's stallTimeout.
  expect(stdout + stderr).not.toContain("Nothing has changed for");
  expect(stdout).toContain("creating failed");
  await project.mustWork(project.destroy());
  await project.remove();
});

test("cancel removes the lock of an update, and ends neither it nor its commands; an interrupt does", async () => {
  const small = await engineProject({
    program: `
import * as command from "@pulumi/command";
new command.local.Command("wait", { create: "echo $$ >pid; exec sleep 900" });
`,
  });
  let pid = "";
  let said: RunResult[] = [];
  let goesOn: string[] = [];
  const { code, stderr } = await small.interrupted(
    async () => {
      if (pid === "") pid = (await readFile(join(small.directory, "pid"), "utf8").catch(() => "")).trim();
      if (pid !== "" && said.length === 0) {
        said = [await small.up(), await small.pulumi("cancel", "--yes")];
        goesOn = commandLine(pid);
      }
      return pid !== "";
    },
    "up",
    "--yes",
    "--skip-preview",
  );
  expect(said.map(({ code }) => code === 0)).toEqual([false, true]);
  expect(said[0]?.stderr).toContain("the stack is currently locked");
  expect(goesOn).toContain("sleep");
  expect(code).not.toBe(0);
  expect(stderr).toContain("there was a problem deleting the lock");
  expect(commandLine(pid)).toEqual([]);
  await small.mustWork(small.destroy());
  await small.remove();
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
    const told = await project.mustWork(
      project.pulumi(...shownWords("docs/operations.md", "pulumi stack --show-urns")),
    );
    expect(told.stdout).toContain(provider.urn);
    const namespace = "kubernetes:core/v1:Namespace";
    const adopt = async (type: string, id: string, parentType: string, parent: string) => {
      const { urn } = await resource(`contrast-runtime:index:${parentType}`, parent);
      expect(told.stdout).toContain(urn);
      const words = shownWords("docs/operations.md", "pulumi import kubernetes:core/v1:Namespace ", {
        [namespace]: type,
        [system]: id,
        "<URN of the component>": urn,
        "<URN of the provider>": provider.urn,
      });
      await project.mustWork(project.pulumi(...words, "--yes", "--skip-preview", "--protect=false"));
    };
    await adopt(namespace, system, "ContrastRuntime", "runtime");
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

/** What `render` says of the project's stack, and where its manifests are. */
async function rendered(stack: string): Promise<{ into: string; said: string }> {
  const into = join(project.home, "rendered");
  const file = join(project.directory, `Pulumi.${stack}.yaml`);
  const bin = join(packageRoot, "tools", "cli", "bin.mjs");
  const said = await check(process.execPath, [bin, "render", "--stack", file, "--output", into], { cwd: packageRoot });
  return { into, said };
}

test("a stack's manifests are rendered without engine and state, and applied at the first attempt", async () => {
  await newStack("rendered", inCluster);
  const { into } = await rendered("rendered");
  await server.kubectl("apply", "-k", into);
  const name = ["daemonset", "contrast-installer-workers", "-n", system, "-o", "yaml"];
  const daemonSet = parse(await server.kubectl("get", ...name));
  expect(daemonSet.spec.template.spec.containers[0].image).toBe(image("a"));
  expect(await server.kubectl("get", "runtimeclass", old, "-o", "jsonpath={.handler}")).toBe(old);
  await server.kubectl("delete", "-k", into);
  await project.remove();
});

test("a class that moves to another handler is refused by apply, and the way that render names leads on", async () => {
  /** The class's name at the first or at the second of two payloads. */
  const named = (place: number): Configuration => {
    const runtimes = ["contrast-go", "contrast-go-next"].map((payload, index) => ({
      platform: "metal-qemu-snp",
      payload: fixture(payload),
      acknowledgedAdvisories: fixtureAdvisories[payload] ?? [],
      ...(index === place && { classNames: ["confidential"] }),
    }));
    const { groups } = inCluster;
    return { ...inCluster, groups: { workers: { ...(groups as Record<string, object>).workers, runtimes } } };
  };
  const handler = () => server.kubectl("get", "runtimeclass", "confidential", "-o", "jsonpath={.handler}");
  await newStack("moved", named(0));
  expect((await rendered("moved")).said).not.toContain("kubectl replace");
  await server.kubectl("apply", "-k", join(project.home, "rendered"));
  expect(await handler()).toBe(old);

  await configure(project, "moved", named(1));
  const { into, said } = await rendered("moved");
  await expect(server.kubectl("apply", "-k", into)).rejects.toThrow(/handler.*field is immutable/s);
  const [, command = "none"] = /^Moved: RuntimeClass confidential, .* kubectl (replace .*)$/m.exec(said) ?? [];
  await server.kubectl(...command.split(" "));
  expect(await handler()).toBe(fixtureHandler("contrast-go-next"));
  await server.kubectl("apply", "-k", into);
  expect(await handler()).toBe(fixtureHandler("contrast-go-next"));
  await server.kubectl("delete", "-k", into);
  await project.remove();
});
