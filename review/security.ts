import { platforms } from "../node-installer/runtime/platforms.ts";
import type { PlatformName } from "../node-installer/runtime/spec.ts";
import { type GroupChange, isAnotherCluster } from "./groups.ts";
import { items, leafChanges } from "./leaves.ts";
import { code, exchange, known, type Line, predicted, unknown } from "./lines.ts";
import type { Inputs, Preview, Step } from "./preview.ts";

/** What a reviewer who answers for security has to see, whatever else changes. */
export function securityLines(changes: GroupChange[], { steps }: Preview): Line[] {
  return [
    ...changes.flatMap(groupLines),
    ...steps.flatMap((step) => (rows[step.type] ?? otherRow(step.type))?.(step) ?? []),
    // Last, since they are the most.
    ...steps.flatMap((step) => (step.type === "contrast-runtime:index:BareMetalNodes" ? hostKeyLines(step) : [])),
  ];
}

function groupLines({ group, before, after, added }: GroupChange): Line[] {
  const lines = added.flatMap(({ handler, platform }) => {
    const row = platforms[platform as PlatformName];
    if (row?.insecure)
      return [
        known(
          `${code(handler)} is insecure: platform ${code(platform)} has no TEE, nothing in its pods is confidential.`,
        ),
      ];
    return row?.experimental
      ? [known(`${code(handler)} is experimental: nobody has run platform ${code(platform)} on its hardware.`)]
      : [];
  });
  if (!after?.image || before?.image === after.image) return lines;
  const text = before?.image ? exchange(before.image, after.image) : code(after.image);
  return [...lines, known(`Group ${code(group)}: the installer, which is root on its nodes, is ${text}.`)];
}

/** By type of resource. Everything here is in the diff. */
const rows: Record<string, (step: Step) => Line[]> = {
  "kubernetes:apps/v1:DaemonSet": podLines,
  "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole": ruleLines,
  "kubernetes:rbac.authorization.k8s.io/v1:Role": ruleLines,
  "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding": bindingLines,
  "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding": bindingLines,
  "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicy": policyLines,
  "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicyBinding": policyLines,
  "kubernetes:core/v1:Namespace": namespaceLines,
  "kubernetes:core/v1:Secret": ({ op, name }) => [known(`Secret ${code(name)}: ${op}. Its value is not shown.`)],
  "command:remote:Command": trustLines,
  "pulumi:providers:kubernetes": clusterLines,
};

/** Leaves of the pod template that others explain: the image, which nodes, and the spec's name. */
const explained = /^containers\[\d+\]\.image$|^nodeSelector|^affinity|^volumes\[\d+\]\.configMap\.name$|^tolerations/;
/** Names of leaves that say nothing about what a pod may do. */
const harmless = /^(containers\[\d+\]\.(livenessProbe|readinessProbe|resources)|terminationGracePeriodSeconds)/;

function podLines({ op, name, before, after }: Step): Line[] {
  const [old, now] = [podSpec(before), podSpec(after)];
  if (op === "delete" || !now) return [];
  const changed = leafChanges(old ?? {}, now);
  const tolerations = (spec: Inputs | undefined) => items(spec?.tolerations).map((entry) => JSON.stringify(entry));
  const [toleratedBefore, toleratedAfter] = [tolerations(old), tolerations(now)];
  const lines = [
    ...toleratedAfter
      .filter((entry) => !toleratedBefore.includes(entry))
      .map((entry) => known(`DaemonSet ${code(name)} tolerates ${code(entry)}.`)),
    ...toleratedBefore
      .filter((entry) => !toleratedAfter.includes(entry))
      .map((entry) => known(`DaemonSet ${code(name)} no longer tolerates ${code(entry)}.`)),
  ];
  if (!old) return [...lines, privileges(name, now)];
  return [
    ...lines,
    ...changed
      .filter(({ path }) => !explained.test(path) && !harmless.test(path))
      .map(({ path, before: from, after: to }) => {
        // The value of a variable may be confidential, though none is today.
        const hidden = /\.env\[/.test(path);
        return known(`DaemonSet ${code(name)}: pod's ${code(path)} ${hidden ? "changes" : exchange(from, to)}.`);
      }),
  ];
}

const podSpec = (inputs: Inputs | undefined): Inputs | undefined =>
  (inputs as { spec?: { template?: { spec?: Inputs } } } | undefined)?.spec?.template?.spec;

interface Container {
  name?: string;
  securityContext?: { privileged?: boolean; capabilities?: { add?: string[] } };
}

function privileges(name: string, spec: Inputs): Line {
  const containers = [...items<Container>(spec.initContainers), ...items<Container>(spec.containers)];
  const paths = items<{ hostPath?: { path: string } }>(spec.volumes).flatMap(({ hostPath }) => hostPath?.path ?? []);
  const words = [
    ...containers.flatMap((container) => {
      if (typeof container !== "object") return [`containers ${container}`];
      const { privileged = false, capabilities } = container.securityContext ?? {};
      const which = containers.length > 1 ? `${container.name}: ` : "";
      const added = items(capabilities?.add ?? "the runtime's own").join(", ");
      return [`${which}${privileged ? "privileged" : "not privileged"}`, `${which}capabilities ${added}`];
    }),
    ...["hostPID", "hostNetwork", "hostIPC"].filter((key) => spec[key] === true),
    ...paths.map((path) => `the node's ${path}`),
  ];
  return known(`DaemonSet ${code(name)} is new; its pods have: ${words.map(code).join("; ")}.`);
}

function ruleLines({ op, type, name, before, after }: Step): Line[] {
  const kind = type.split(":").at(-1);
  if (op === "delete") return [known(`${kind} ${code(name)} is removed.`)];
  const [old, now] = [rightsOf(before), rightsOf(after)];
  return [
    ...rightsBeyond(now, old).map((right) => known(`${kind} ${code(name)} allows: ${right}.`)),
    ...rightsBeyond(old, now).map((right) => known(`${kind} ${code(name)} no longer allows: ${right}.`)),
  ];
}

/** One verb on one resource, or on one object of it. */
interface Right {
  verb: string;
  /** "leases of coordination.k8s.io" */
  resource: string;
  /** "" for every one. */
  name: string;
}

function rightsOf(inputs: Inputs | undefined): Right[] {
  const list = (rule: Inputs, key: string) => items<string>(rule[key]);
  const orAll = (names: string[]) => (names.length > 0 ? names : [""]);
  return items<Inputs>(inputs?.rules).flatMap((rule) =>
    orAll(list(rule, "apiGroups")).flatMap((group) =>
      [...list(rule, "resources"), ...list(rule, "nonResourceURLs")].flatMap((resource) =>
        orAll(list(rule, "resourceNames")).flatMap((name) =>
          list(rule, "verbs").map((verb) => ({ verb, resource: group ? `${resource} of ${group}` : resource, name })),
        ),
      ),
    ),
  );
}

/** The rights of the one that the other lacks, verbs and names together where they go together. */
function rightsBeyond(rights: Right[], others: Right[]): string[] {
  const held = new Set(others.map((right) => JSON.stringify(right)));
  const extra = rights.filter((right) => !held.has(JSON.stringify(right)));
  const verbs = Map.groupBy(extra, ({ resource, name }) => JSON.stringify([resource, name]));
  const names = Map.groupBy(verbs.values(), (same) =>
    JSON.stringify([same.map(({ verb }) => verb), same[0]?.resource, same[0]?.name === ""]),
  );
  return [...names.values()].map((alike) => {
    const [first = []] = alike;
    const named = alike.flatMap(([right]) => right?.name || []);
    const objects = named.length > 0 ? ` named ${named.join(", ")}` : "";
    return code(`${first.map(({ verb }) => verb).join(", ")} ${first[0]?.resource}${objects}`);
  });
}

function bindingLines({ op, type, name, before, after }: Step): Line[] {
  const kind = type.split(":").at(-1);
  const text = (inputs: Inputs | undefined) => {
    const { roleRef, subjects } = (inputs ?? {}) as { roleRef?: { name?: string }; subjects?: unknown };
    return `${items<Inputs>(subjects)
      .map((subject) => code(`${subject.kind} ${subject.namespace ?? ""}/${subject.name}`))
      .join(", ")} has ${code(roleRef?.name)}`;
  };
  if (op === "delete") return [known(`${kind} ${code(name)} is removed.`)];
  const [old, now] = [text(before), text(after)];
  return old === now && before ? [] : [known(`${kind} ${code(name)}: ${now}${before ? ` (before: ${old})` : ""}.`)];
}

function policyLines({ op, type, name, before, after }: Step): Line[] {
  const kind = type.split(":").at(-1);
  if (op === "create")
    return kind?.endsWith("Binding")
      ? []
      : [known(`${kind} ${code(name)}, which limits what installers may do, is new.`)];
  if (op === "delete") return [known(`${kind} ${code(name)}, which limits what installers may do, is removed.`)];
  const changed = leafChanges(before ?? {}, after ?? {});
  return changed.map(({ path, before: from, after: to }) =>
    known(`${kind} ${code(name)}: ${code(path)} ${exchange(from, to)}.`),
  );
}

function namespaceLines({ op, name, before, after }: Step): Line[] {
  if (op === "delete") return [known(`Namespace ${code(name)} is deleted with everything in it.`)];
  return leafChanges(before ?? {}, after ?? {})
    .filter(({ path }) => path.includes("pod-security.kubernetes.io"))
    .map(({ path, before: from, after: to }) => known(`Namespace ${code(name)}: ${code(path)} ${exchange(from, to)}.`));
}

function hostKeyLines({ before, after }: Step): Line[] {
  const keys = (inputs: Inputs | undefined) =>
    new Map(
      items<{ name: string; hostKey?: string }>(inputs?.hosts).flatMap(({ name, hostKey }) =>
        name === undefined ? [] : [[name, hostKey]],
      ),
    );
  const [old, now] = [keys(before), keys(after)];
  return [...now].flatMap(([host, key]) => {
    if (old.get(host) === key) return [];
    const text = old.has(host) ? exchange(old.get(host), key) : code(key);
    return [known(`Host ${code(host)} is trusted by its key ${text}.`)];
  });
}

function trustLines({ op, name }: Step): Line[] {
  if (!name.endsWith("-registry") || op === "delete") return [];
  return [known(`Host ${code(name.replace(/-registry$/, ""))} is told which authority to trust for the registry.`)];
}

const otherRow = (type: string) => (type.startsWith("pulumi:providers:") ? providerLines : undefined);

/** Of other providers: which account or subscription, and by which version of the plugin. */
function providerLines({ type, name, before, after, paths }: Step): Line[] {
  if (!before || !after) return [];
  const provider = `Provider ${code(name)} (${code(type.split(":").at(-1))})`;
  const settings = leafChanges(before, after);
  const hidden = paths.filter((path) => !settings.some((setting) => setting.path.startsWith(path)));
  return [
    ...settings.map(({ path, before: from, after: to }) => known(`${provider}: ${code(path)} ${exchange(from, to)}.`)),
    ...hidden.map((path) => known(`${provider}: ${code(path)} changes.`)),
  ];
}

function clusterLines(step: Step): Line[] {
  const { name, before, after, paths } = step;
  if (!before || !after) return [];
  if (isAnotherCluster(step)) return anotherCluster(before, after);
  // Credentials are secrets, which are the same text on both sides: where no path is named, they are all that can differ.
  const [settings, isTold] = [leafChanges(before, after), paths.length === 0 || paths.includes("kubeconfig")];
  return [
    ...settings.map(({ path, before: from, after: to }) =>
      known(`Provider ${code(name)}: ${code(path)} ${exchange(from, to)}.`),
    ),
    ...(isTold
      ? [unknown(`Provider ${code(name)} gets different credentials; whether they lead to the same cluster.`)]
      : []),
  ];
}

function anotherCluster(before: Inputs, after: Inputs): Line[] {
  const { clusterIdentifier: old, renderYamlToDirectory: oldDirectory } = before;
  const { clusterIdentifier: now, renderYamlToDirectory: directory } = after;
  if (directory !== undefined) {
    return [
      known(`Manifests are written to ${code(directory)}, and cluster ${code(old)} is no longer reached.`),
      predicted("What the stack made there is removed from it, before anything applies the manifests."),
    ];
  }
  return [
    known(
      oldDirectory === undefined
        ? `Another cluster: ${exchange(old, now)}.`
        : `Cluster ${code(now)} is reached; until now manifests were written to ${code(oldDirectory)}.`,
    ),
    predicted(
      oldDirectory === undefined
        ? "What the stack made in the old cluster is removed from there and made in the new one; what is installed on the old one's nodes stays there."
        : "Everything is made in it. What something else made there of the manifests is in the way of that.",
    ),
  ];
}
