import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type EngineProject, engineProject } from "./harness.ts";

const program = (args: string) => `
import { AgentPool } from "@pulumi/azure-native/containerservice/agentPool.js";
import { getSubscriptionFeatureRegistrationOutput } from "@pulumi/azure-native/features/getSubscriptionFeatureRegistration.js";
import { listManagedClusterUserCredentialsOutput } from "@pulumi/azure-native/containerservice/listManagedClusterUserCredentials.js";
const cluster = { resourceGroupName: "group", resourceName: "cluster" };
export const pool = new AgentPool("pool", { ...cluster, agentPoolName: "cc1", mode: "User", vmSize: "Standard_DC4as_cc_v5",
  workloadRuntime: "KataVmIsolation", osSKU: "AzureLinux", count: 1, securityProfile: { enableVTPM: true }, ...${args} }).id;
export const kubeconfig = listManagedClusterUserCredentialsOutput(cluster).kubeconfigs[0].value;
export const feature = getSubscriptionFeatureRegistrationOutput({ providerNamespace: "Microsoft.ContainerService",
  featureName: "F" }).properties.state;
`;

let project: EngineProject;
beforeEach(async () => {
  project = await engineProject({ program: program("{}") });
  const kubeconfig = join(project.home, "kubeconfig");
  await writeFile(kubeconfig, "the kubeconfig");
  project.env.AZURE_STAND_IN_KUBECONFIG = kubeconfig;
});
afterEach(() => project.remove());

test("an agent pool is created, changed in place or replaced, and deleted", async () => {
  await project.mustWork(project.up());
  const { pool, kubeconfig, feature } = await project.outputs();
  expect(pool).toMatch(/\/managedClusters\/cluster\/agentPools\/cc1$/);
  expect(Buffer.from(String(kubeconfig), "base64").toString()).toBe("the kubeconfig");
  expect(feature).toBe("Registered");
  await project.mustWork(project.up("--expect-no-changes"));
  await project.write(program('{ nodeLabels: { a: "b" } }'));
  expect(await project.plan()).toMatchObject([{ op: "update", detailedDiff: { nodeLabels: { kind: "add" } } }]);
  await project.write(program('{ vmSize: "Standard_DC8as_cc_v5" }'));
  expect((await project.plan()).map(({ op }) => op)).toEqual(["replace"]);
  await project.mustWork(project.destroy());
});

test("what the API does not have is refused in the preview, nested properties too", async () => {
  const mistakes =
    '{ workloadRuntime: "KataCc", agentPoolName: "Too_Long_A_Name", upgradeSettings: { maxSurge: "1", maxUnavailble: "1" } } as {}';
  await project.write(program(mistakes));
  const { code, stdout, stderr } = await project.preview();
  expect(code).not.toBe(0);
  expect(stdout + stderr).toContain("upgradeSettings.maxUnavailble");
  expect(stdout + stderr).toContain('"KataCc" is not one of OCIContainer, ');
  expect(stdout + stderr).toContain('"Too_Long_A_Name" does not match');
});
