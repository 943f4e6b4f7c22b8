import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import type { EngineProject } from "./harness.ts";
import { type Configuration, configure, programProject } from "./program.ts";

/*
 * Stacks that an earlier version made, from before children were named after their parents. The states are exports (with
 * `--show-secrets`, without positions in source files and times) of an update that this program made at commit bcc8e8c with
 * the configuration beside them: they are never made anew.
 */

const directory = join(import.meta.dirname, "..", "golden", "states");
const read = (file: string) => readFileSync(join(directory, file), "utf8");

/** What the configuration holds encrypted. */
const secrets: Record<string, Record<string, string>> = {
  cluster: {
    "registry.pullSecret": '{"auths":{}}',
    "groups.metal.nodes.ssh.privateKey": "the-key",
    "groups.metal.nodes.joinCommand": "the-join-command",
  },
  aks: {},
};

interface State {
  deployment: { resources: { type: string; inputs?: { kubeconfig?: { plaintext: string } } }[] };
}

/** What the cluster answered then: it is an input of the state's provider, so another one would be a change. */
function kubeconfigOf(state: State): string {
  const provider = state.deployment.resources.find(({ type }) => type === "pulumi:providers:kubernetes");
  const { plaintext } = provider?.inputs?.kubeconfig ?? {};
  return plaintext === undefined ? "" : (JSON.parse(plaintext) as string);
}

/** A project whose stack has the state, and the configuration that it was made with or an edited one. */
async function imported(name: string, edited = (configuration: string) => configuration): Promise<EngineProject> {
  const stack = `before-${name}`;
  const project = await programProject(stack);
  const state = JSON.parse(read(`${name}.json`)) as State;
  const kubeconfig = join(project.home, "kubeconfig");
  await writeFile(kubeconfig, kubeconfigOf(state));
  // No cluster is there: nothing has to be asked for where nothing changes.
  Object.assign(project.env, { KUBECONFIG: kubeconfig, AZURE_STAND_IN_KUBECONFIG: kubeconfig });
  const { config } = parse(edited(read(`${name}.yaml`))) as { config: Configuration };
  await configure(project, stack, config);
  for (const [path, value] of Object.entries(secrets[name] ?? {}))
    await project.mustWork(project.pulumi("config", "set", "--secret", "--path", `contrast-runtime:${path}`, value));
  await project.mustWork(project.pulumi("stack", "import", "--file", join(directory, `${name}.json`)));
  return project;
}

/**
 * What was changed on purpose since the states were made: installers may list their group's tickets, and pods; commands are
 * found by Node, which also starts them; hosts are awaited; upstream's and Contrast's Kata on metal is configured anew, hence
 * other handlers. Digests in names are left out.
 */
const changed: Record<string, string[]> = {
  cluster: [
    ...["metal", "workers"].flatMap((group) => [
      ...installer(group),
      `create ConfigMap runtime-${group}-DIGEST: `,
      `delete ConfigMap contrast-installer-${group}-DIGEST: `,
      `update DaemonSet runtime-${group}: spec`,
      `update NodeInstaller runtime-${group}: `,
      `update Command runtime-${group}-rollout: create,environment,interpreter`,
    ]),
    ...["tdx-1", "tdx-2"].map((host) => `create Command runtime-metal-hosts-${host}-reach: `),
    ...["snp", "snp", "tdx"].flatMap((tee) => [
      `create RuntimeClass runtime-classes-contrast-cc-metal-qemu-${tee}-DIGEST: `,
      `delete RuntimeClass contrast-cc-metal-qemu-${tee}-DIGEST: `,
    ]),
    "update ContrastRuntime runtime: ",
    "update RuntimeClasses runtime-classes: ",
  ],
  // Its pods, which have a snapshotter, are replaced atOnce at a time. Its spec names the advisories that it acknowledges.
  aks: [
    ...installer("cc"),
    "create ConfigMap runtime-cc-DIGEST: ",
    "delete ConfigMap contrast-installer-cc-DIGEST: ",
    "update DaemonSet runtime-cc: spec",
    "update Command runtime-cc-rollout: create,environment,interpreter",
  ],
};

function installer(group: string): string[] {
  return [
    `update ClusterRole runtime-${group}: rules`,
    `update Role runtime-${group}-tickets: rules`,
    `update ValidatingAdmissionPolicy runtime-${group}-node: spec`,
    `update Command runtime-${group}-uninstall: delete,interpreter`,
  ];
}

test.each(Object.keys(secrets))(
  "%s: of an earlier version's state only that changes which was changed on purpose",
  async (name) => {
    const project = await imported(name);
    const steps = (await project.plan()).map(({ op, urn, detailedDiff }) => {
      const [type, resource] = urn.split("::").slice(-2);
      const what = [...new Set(Object.keys(detailedDiff ?? {}).map((path) => path.replace(/\W.*/, "")))];
      return `${op} ${type?.split(":").at(-1)} ${resource?.replace(/-[0-9a-f]{8}$/, "-DIGEST")}: ${what}`;
    });
    expect(steps.sort()).toEqual(changed[name]?.toSorted());
    await project.remove();
  },
);

test("commands of hosts that an earlier version passed over are updated once the hosts are back", async () => {
  const project = await imported("cluster", (text) => text.replace("ignoreNodes: [tdx-1, tdx-2]", "ignoreNodes: []"));
  const steps = (await project.plan()).filter(({ urn }) => urn.includes("$command:remote:Command::"));
  const planned = steps.map(({ op, urn }) => `${op} ${urn.split("::").at(-1)}`).sort();
  const hosts = ["tdx-1", "tdx-2"].flatMap((host) =>
    ["check", "join", "prepare", "registry"].map((concern) => `update runtime-metal-hosts-${host}-${concern}`),
  );
  expect(planned).toEqual(hosts);
  await project.remove();
});
