// How long the program takes under the real engine, with the stand-ins and a real API server: medians of alternating
// previews.
import { randomUUID } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { packageRoot } from "../../tools/files/project.ts";
import { type Progress, toStderr } from "../../tools/process/progress.ts";
import { type ApiServer, startApiServer } from "../engine/api-server.ts";
import { type EngineProject, engineProject } from "../engine/harness.ts";
import { type Configuration, configure, fixture, image, programProject } from "../engine/program.ts";
import { fixtureAdvisories } from "../unit/runtime/fixtures.ts";
import type { Benchmark } from "./measure.ts";

const rounds = 5;

/** Medians of whole previews in milliseconds. The projects take turns, so that all see the same load on the machine. */
async function previewTimes(projects: EngineProject[]): Promise<number[]> {
  const times = projects.map((): number[] => []);
  for (const project of projects) await project.mustWork(project.preview());
  for (let round = 0; round < rounds; round += 1) {
    for (const [index, project] of projects.entries()) {
      const begin = performance.now();
      await project.mustWork(project.preview());
      times[index]?.push(performance.now() - begin);
    }
  }
  return times.map((each) => each.sort((a, b) => a - b)[Math.floor(rounds / 2)] ?? Number.NaN);
}

/** Preview times of several projects, which are removed afterwards. */
async function timesOf(making: Promise<EngineProject>[]): Promise<number[]> {
  const projects = await Promise.all(making);
  try {
    return await previewTimes(projects);
  } finally {
    for (const project of projects) await project.remove();
  }
}

async function stackOn(server: ApiServer, stack: string, nodes: object): Promise<EngineProject> {
  const project = await programProject(stack);
  const file = join(project.home, "kubeconfig");
  await writeFile(file, server.kubeconfig);
  project.env.KUBECONFIG = file;
  const workers = {
    distribution: "containerd",
    nodes,
    runtimes: [
      {
        platform: "metal-qemu-snp",
        payload: fixture("contrast-go"),
        acknowledgedAdvisories: fixtureAdvisories["contrast-go"],
      },
    ],
  };
  const configuration: Configuration = {
    cluster: { kind: "kubeconfig", name: "bench" },
    installerImage: image("a"),
    groups: { workers },
  };
  await configure(project, stack, configuration);
  return project;
}

async function manyNodes(server: ApiServer, progress: Progress): Promise<Benchmark> {
  progress("Making 1 000 nodes for the benchmark of previews …");
  const items = Array.from({ length: 1000 }, (_, index) => ({
    apiVersion: "v1",
    kind: "Node",
    metadata: { name: `node-${index}`, labels: { pool: "all", ...(index === 0 && { single: "yes" }) } },
  }));
  const scratch = await engineProject({ program: "" });
  const file = join(scratch.home, "nodes.json");
  await writeFile(file, JSON.stringify({ apiVersion: "v1", kind: "List", items }));
  await server.kubectl("create", "-f", file);
  await scratch.remove();
  const [all = Number.NaN, one = Number.NaN] = await timesOf([
    stackOn(server, "all", { selector: { pool: "all" } }),
    stackOn(server, "one", { selector: { single: "yes" } }),
  ]);
  return {
    name: "preview of a group that matches 1 000 nodes",
    ours: all,
    reference: { name: "one node", time: one },
    limit: 1.1,
    ok: all / one <= 1.1,
  };
}

/** Another 50 hosts must cost about as much as the first 50. */
async function manyHosts(server: ApiServer): Promise<Benchmark> {
  const withHosts = async (count: number): Promise<EngineProject> => {
    const hosts = Array.from({ length: count }, (_, index) => ({
      name: `host-${index}`,
      address: `10.1.0.${index}`,
      hostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    }));
    const stack = `hosts-${count}`;
    const project = await stackOn(server, stack, { hosts, ssh: { privateKey: "" } });
    // Encrypted with the stack's own key, as the configuration demands.
    const path = "contrast-runtime:groups.workers.nodes.ssh.privateKey";
    await project.mustWork(project.pulumi("config", "set", "--secret", "--path", path, randomUUID()));
    return project;
  };
  const [hundred = Number.NaN, fifty = Number.NaN, one = Number.NaN] = await timesOf([100, 50, 1].map(withHosts));
  const [second, first] = [hundred - fifty, fifty - one];
  return {
    name: "preview: the second 50 SSH hosts",
    ours: second,
    reference: { name: "the first 50", time: first },
    limit: 1.5,
    ok: second / first <= 1.5,
    note: `${((hundred - one) / 99).toFixed(1)} ms per host; ${hundred.toFixed(0)} ms with 100, ${one.toFixed(0)} ms with one`,
  };
}

/** The loading of the program's modules, which the engine waits for before the first resource. */
async function programStart(): Promise<Benchmark> {
  const program = await readFile(join(packageRoot, "index.ts"), "utf8");
  const modules = [...program.matchAll(/ from "(.*)";$/gm)].map(([, path = ""]) => join(packageRoot, path));
  const loading = modules.map((path) => `import "${path}";\n`).join("");
  const [ours = Number.NaN, empty = Number.NaN] = await timesOf([
    engineProject({ program: loading }),
    engineProject({ program: 'import "@pulumi/pulumi";\n' }),
  ]);
  return {
    name: "start of the program, with all of its modules loaded",
    ours,
    reference: { name: "an empty program", time: empty },
    limit: 1.2,
    ok: ours / empty <= 1.2,
  };
}

export async function programBenchmarks(progress: Progress = toStderr): Promise<Benchmark[]> {
  const server = await startApiServer();
  try {
    return [await programStart(), await manyNodes(server, progress), await manyHosts(server)];
  } finally {
    await server.stop();
  }
}
