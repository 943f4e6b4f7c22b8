import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { podSecurity, snapshotterSecurity } from "../../../../components/manifests/pod-security.ts";

const golden = join(import.meta.dirname, "../../../golden");

interface Container {
  name: string;
  securityContext?: {
    privileged?: boolean;
    allowPrivilegeEscalation?: boolean;
    readOnlyRootFilesystem?: boolean;
    capabilities?: { drop?: string[]; add?: string[] };
  };
}
interface PodSpec {
  securityContext?: { seccompProfile?: { type: string } };
  containers: Container[];
  initContainers?: Container[];
}

/** Every pod template in a document, wherever it is. */
function podSpecs(value: unknown): PodSpec[] {
  if (typeof value !== "object" || value === null) return [];
  const own = "containers" in value && Array.isArray(value.containers) ? [value as PodSpec] : [];
  return [...own, ...Object.values(value).flatMap(podSpecs)];
}

const stacks = readdirSync(golden).filter((name) => name.endsWith(".yaml"));
const pods = stacks.flatMap((stack) =>
  parseAllDocuments(readFileSync(join(golden, stack), "utf8"))
    .flatMap((document) => podSpecs(document.toJS()))
    .map((pod) => ({ stack, pod })),
);

test("every stack's pods have no capability but those that are explained, for each container", () => {
  expect(new Set(pods.map(({ stack }) => stack))).toEqual(new Set(stacks));
  expect(podSecurity.container.capabilities.add).toEqual(["CHOWN", "DAC_OVERRIDE", "SYS_CHROOT"]);
  expect(snapshotterSecurity.container.capabilities.add).toEqual(["DAC_OVERRIDE"]);
  for (const { stack, pod } of pods) {
    expect(pod.securityContext?.seccompProfile?.type, stack).toBe("RuntimeDefault");
    for (const { name, securityContext } of [...pod.containers, ...(pod.initContainers ?? [])]) {
      expect(securityContext, `${stack}: ${name}`).toMatchObject({
        privileged: false,
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ["ALL"] },
      });
      const explained = name === "installer" ? podSecurity : snapshotterSecurity;
      for (const capability of securityContext?.capabilities?.add ?? [])
        expect(explained.container.capabilities.add, `${stack}: ${name}`).toContain(capability);
    }
  }
});

test("a snapshotter beside an installer is among them", () => {
  expect(
    pods.flatMap(({ pod }) => pod.containers.map(({ name }) => name)).filter((name) => name.startsWith("tardev")),
  ).not.toEqual([]);
});
