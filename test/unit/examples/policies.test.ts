import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { defaults } from "../../../components/config/defaults.ts";
import { installerPod } from "../../../components/config/installer-pod-schema.ts";
import { podTemplate } from "../../../components/installer-pod.ts";
import { podSecurity } from "../../../components/manifests/pod-security.ts";
import {
  handlerLabelPrefix,
  installerLabels,
  installerName,
  partOfLabel,
  systemNamespace,
} from "../../../runtime/names.ts";
import { platforms } from "../../../runtime/platforms.ts";
import type { InstallSpec } from "../../../runtime/spec.ts";

/* The exceptions are about the installers' pods, and about everything for which a policy would refuse these. */

const directory = resolve(import.meta.dirname, "../../../examples/policies");
const text = (file: string) => readFileSync(join(directory, file), "utf8");
const document = <T>(file: string) => parse(text(file)) as T;

const spec: InstallSpec = {
  ...{ schemaVersion: 1, group: "workers", distribution: { name: "containerd" }, atOnce: 1 },
  ...{ runtimes: [], verifySandbox: false },
};
const template = podTemplate({
  ...{ group: "workers", image: "x", specName: "x", spec, tolerations: [], priorityClass: defaults.priorityClass },
  installerPod: installerPod.parse({}),
});

interface Pod {
  hostPID?: boolean;
  hostNetwork?: boolean;
  hostIPC?: boolean;
  securityContext: { runAsUser?: number; runAsNonRoot?: boolean; seccompProfile?: { type: string } };
  volumes: { hostPath?: object }[];
}
interface Container {
  privileged?: boolean;
  allowPrivilegeEscalation?: boolean;
  capabilities: { add: string[]; drop: string[] };
  seLinuxOptions?: { type?: string };
  appArmorProfile?: { type: string };
}
const pod = template.spec as unknown as Pod;
const container = podSecurity.container as Container;

/** What the Pod Security Standard "baseline" lets pods add. */
const baselineCapabilities = [
  ...["AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP"],
  ...["SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"],
];

/** Kyverno's own policies for the Pod Security Standards that the installers' pods break, by what breaks them. */
const broken = {
  "disallow-host-namespaces": pod.hostPID || pod.hostNetwork || pod.hostIPC,
  "disallow-host-path": pod.volumes.some(({ hostPath }) => hostPath),
  "restrict-volume-types": pod.volumes.some(({ hostPath }) => hostPath),
  "disallow-privileged-containers": container.privileged,
  "disallow-privilege-escalation": container.allowPrivilegeEscalation !== false,
  "require-run-as-nonroot": pod.securityContext.runAsNonRoot !== true,
  "require-run-as-non-root-user": pod.securityContext.runAsUser === 0,
  "disallow-capabilities": container.capabilities.add.some((name) => !baselineCapabilities.includes(name)),
  "disallow-capabilities-strict": container.capabilities.add.some((name) => name !== "NET_BIND_SERVICE"),
  "disallow-selinux": container.seLinuxOptions?.type !== undefined,
  "restrict-apparmor-profiles": container.appArmorProfile?.type === "Unconfined",
  "restrict-seccomp-strict": pod.securityContext.seccompProfile?.type !== "RuntimeDefault",
};
const needed = Object.entries(broken)
  .flatMap(([policy, isBroken]) => (isBroken ? [policy] : []))
  .sort();

test("the installers break some policies", () => {
  expect(needed).toContain("disallow-host-path");
  expect(needed).not.toContain("disallow-privileged-containers");
});

test("Kyverno's exception names exactly those policies, each rule also for the DaemonSet, and the installers alone", () => {
  const { spec } = document<{
    spec: {
      match: { any: { resources: { kinds: string[]; namespaces: string[]; names: [string] } }[] };
      exceptions: { policyName: string; ruleNames: string[] }[];
    };
  }>("kyverno-exception.yaml");
  expect(spec.exceptions.map(({ policyName }) => policyName).sort()).toEqual(needed);
  for (const { ruleNames } of spec.exceptions) {
    const [rule] = ruleNames;
    expect(ruleNames).toEqual([rule, `autogen-${rule}`]);
  }
  const [match] = spec.match.any.map(({ resources }) => resources);
  expect(match).toMatchObject({ kinds: ["DaemonSet", "Pod"], namespaces: [systemNamespace] });
  const [pattern = ""] = match?.names ?? [];
  expect(installerName("workers")).toMatch(new RegExp(`^${pattern.replace("*", ".*")}$`));
});

test("the exception for ValidatingPolicies names the same, and the installers' label", () => {
  const { spec } = document<{
    spec: { policyRefs: { kind: string; name: string }[]; matchConditions: { expression: string }[] };
  }>("kyverno-exception-cel.yaml");
  expect(spec.policyRefs.map(({ name }) => name).sort()).toEqual(needed);
  const [condition] = spec.matchConditions;
  for (const [key, value] of Object.entries(partOfLabel)) {
    expect(installerLabels("workers")).toHaveProperty([key], value);
    expect(condition?.expression).toContain(`[?'${key}'].orValue('') == '${value}'`);
  }
  expect(condition?.expression).toContain(`== '${systemNamespace}'`);
});

test("Gatekeeper and Azure Policy leave the installers' namespace out", () => {
  const gatekeeper = document<{ spec: { match: { excludedNamespaces: string[] }[] } }>("gatekeeper-config.yaml");
  expect(gatekeeper.spec.match.map(({ excludedNamespaces }) => excludedNamespaces)).toEqual([[systemNamespace]]);
  const azure = JSON.parse(text("azure-policy-parameters.json")) as { excludedNamespaces: { value: string[] } };
  expect(azure.excludedNamespaces.value).toContain(systemNamespace);
});

test("the quota is for the installers' priority class, in their namespace", () => {
  expect(document("priority-class-quota.yaml")).toMatchObject({
    metadata: { namespace: systemNamespace },
    spec: { scopeSelector: { matchExpressions: [{ scopeName: "PriorityClass", values: [defaults.priorityClass] }] } },
  });
});

test("the keys that nodes advertise are those that teeKeys charges", () => {
  const { spec } = document<{ spec: { rules: { extendedResources: object }[] } }>("tee-keys.yaml");
  const advertised = spec.rules.flatMap(({ extendedResources }) => Object.keys(extendedResources));
  const charged = Object.values(platforms).flatMap(({ extendedResource }) => extendedResource ?? []);
  expect(new Set(advertised)).toEqual(new Set(charged));
});

test("from re-imaged nodes exactly what says which handlers they serve is taken, and no heartbeat depends on it", () => {
  const [policy, binding] = parseAllDocuments(text("re-imaged-nodes.yaml")).map((one) => one.toJS());
  const { failurePolicy, matchConditions, mutations, matchConstraints } = policy.spec;
  expect([failurePolicy, binding.spec.policyName]).toEqual(["Ignore", policy.metadata.name]);
  expect(matchConstraints.resourceRules).toMatchObject([{ operations: ["UPDATE"], resources: ["nodes/status"] }]);
  for (const { expression } of [matchConditions[1], mutations[0].jsonPatch])
    expect(expression).toContain(`key.startsWith('${handlerLabelPrefix}')`);
});

test("every file is looked at here", () => {
  const looked = readFileSync(import.meta.filename, "utf8");
  for (const name of readdirSync(directory)) expect(looked).toContain(`"${name}"`);
});
