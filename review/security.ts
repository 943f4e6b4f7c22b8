import { platforms } from "../runtime/platforms.ts";
import type { PlatformName } from "../runtime/spec.ts";
import { textDifference } from "./blocks.ts";
import { fieldsOf } from "./fields.ts";
import { type GroupChange, isAnotherCluster } from "./groups.ts";
import { allLeaves, isBelow, items, type Leaf, leafChanges } from "./leaves.ts";
import type { Ledger } from "./ledger.ts";
import {
  claim,
  code,
  exchange,
  kindOf,
  known,
  type Line,
  list,
  longestValue,
  predicted,
  type Told,
  unknown,
  word,
} from "./lines.ts";
import type { Inputs, Preview, Step } from "./preview.ts";
import { bindingLines, ruleLines } from "./rights.ts";

const daemonSetType = "kubernetes:apps/v1:DaemonSet";
const podPath = "spec.template.spec";

/** What a reviewer who answers for security has to see, whatever else changes. */
export function securityLines(changes: GroupChange[], { steps }: Preview, ledger: Ledger): Told[] {
  const groups = changes.flatMap((change) => groupLines(change, steps));
  // What these tell is not told again.
  ledger.enter(groups);
  return [
    ...groups,
    ...optionLines(steps, ledger),
    ...steps.flatMap((step) => {
      const lines = Object.hasOwn(rows, step.type) ? rows[step.type] : undefined;
      return lines?.(step, ledger) ?? [];
    }),
    // Last, since they are the most.
    ...steps.flatMap((step) => (step.type === "contrast-runtime:index:BareMetalNodes" ? hostKeyLines(step) : [])),
  ];
}

function groupLines({ group, urn, before, after, added }: GroupChange, steps: Step[]): Told[] {
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
  const line = known(`Group ${code(group)}: the installer, which is root on its nodes, is ${text}.`);
  // The card only says so; of the pods themselves it is told where theirs is the same.
  const pods = steps.filter(({ type, parent }) => type === daemonSetType && parent === urn);
  return [
    ...lines,
    pods.reduce<Told>((told, step) => claim(told, step, imagePaths(step, before?.image, after.image)), line),
  ];
}

function imagePaths({ before, after }: Step, from: unknown, to: unknown): string[] {
  return leafChanges(podSpec(before) ?? {}, podSpec(after) ?? {}).flatMap((leaf) =>
    /^containers\[\d+\]\.image$/.test(leaf.path) && leaf.before === from && leaf.after === to
      ? [`${podPath}.${leaf.path}`]
      : [],
  );
}

/** Whose it is, who makes it, and what keeps it from going: of any resource. Those that say the same have one line. */
function optionLines(steps: Step[], ledger: Ledger): Told[] {
  const names =
    /^options\.(parent|provider|protect|retainOnDelete|deletedWith|external|importID|ignoreChanges)([.[]|$)/;
  const told = steps.flatMap((step) =>
    ledger
      .changes(step)
      .filter(({ path }) => names.test(path))
      .map((leaf) => ({ step, path: leaf.path, sentence: optionSentence(step, leaf) })),
  );
  return [...Map.groupBy(told, ({ sentence }) => sentence)].map(([sentence, same]) => {
    const things = same.map(({ step: { type, name } }) => `${kindOf(type)} ${code(name)}`);
    return same.reduce<Told>(
      (line, { step, path }) => claim(line, step, [path]),
      known(`${list(firstOf([...new Set(things)].sort(), 20))}: ${sentence}.`),
    );
  });
}

function optionSentence({ op }: Step, { path, before, after }: Leaf): string {
  const option = code(path.slice("options.".length));
  const short = (value: unknown) =>
    typeof value === "string" ? value.replace(/^urn:pulumi:[^:]*::[^:]*::/, "") : value;
  if (op === "delete") return `only the stack lets go of it; what it made stays as it is (option ${option})`;
  return `option ${option} ${exchange(short(before), short(after))}`;
}

const firstOf = (words: string[], most: number): string[] =>
  words.length > most ? [...words.slice(0, most), `${words.length - most} more`] : words;

/** One leaf's difference; of long texts every part that differs, in a block. */
function changeLine(sentence: string, { path, before, after, isHidden }: Leaf): Line {
  if (isHidden) return known(`${sentence}${code(path)} changes.`);
  const isLong = [before, after].some((value) => typeof value === "string" && value.length > longestValue);
  if (!isLong || typeof before !== "string" || typeof after !== "string") {
    return known(`${sentence}${code(path)} ${exchange(before, after)}.`);
  }
  return known(`${sentence}${code(path)} changes:`, textDifference(before, after).join("\n"));
}

/** By type of resource. Everything here is in the diff. */
const rows: Record<string, (step: Step, ledger: Ledger) => Told[]> = {
  [daemonSetType]: podLines,
  "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole": ruleLines,
  "kubernetes:rbac.authorization.k8s.io/v1:Role": ruleLines,
  "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding": bindingLines,
  "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding": bindingLines,
  "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicy": policyLines,
  "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicyBinding": policyLines,
  "kubernetes:core/v1:Namespace": namespaceLines,
  "kubernetes:core/v1:ServiceAccount": accountLines,
  "kubernetes:core/v1:Secret": (step) => [
    claim(known(`Secret ${code(step.name)}: ${word(step.op)}. Its value is not shown.`), step, [
      ...(/^(create|delete|replace)$/.test(step.op) ? [`(${step.op})`] : []),
      "data",
      "stringData",
    ]),
  ],
  "pulumi:providers:kubernetes": clusterLines,
  "pulumi:providers:azure-native": providerLines,
};

function podLines(step: Step, ledger: Ledger): Told[] {
  const { op, name, before, after } = step;
  const [old, now] = [podSpec(before), podSpec(after)];
  if (op === "delete" || !now) return [];
  const tolerations = (spec: Inputs | undefined) => items(spec?.tolerations).map((entry) => JSON.stringify(entry));
  const [toleratedBefore, toleratedAfter] = [tolerations(old), tolerations(now)];
  const tolerated = [
    ...toleratedAfter
      .filter((entry) => !toleratedBefore.includes(entry))
      .map((entry) => known(`DaemonSet ${code(name)} tolerates ${code(entry)}.`)),
    ...toleratedBefore
      .filter((entry) => !toleratedAfter.includes(entry))
      .map((entry) => known(`DaemonSet ${code(name)} no longer tolerates ${code(entry)}.`)),
  ].map((line) => claim(line, step, [`${podPath}.tolerations`]));
  if (!old) return [...tolerated, privileges(step, now), ...containerLines(step, {}, now)];
  return [...tolerated, ...containerLines(step, old, now), ...podChanges(step, old, now, ledger, tolerated.length > 0)];
}

/** Every leaf of the pod: what a pod may do is decided in too many places for a list of those that matter. */
function podChanges(step: Step, old: Inputs, now: Inputs, ledger: Ledger, isTolerated: boolean): Told[] {
  const left = ledger.rest(step).map(({ path }) => path);
  const fields = fieldsOf[daemonSetType];
  return leafChanges(old, now)
    .filter(({ path }) => fields?.test(`${podPath}.${path}`) && !(isTolerated && isBelow(path, "tolerations")))
    .filter(({ path }) => left.some((each) => isBelow(each, `${podPath}.${path}`)))
    .map((leaf) => claim(changeLine(`DaemonSet ${code(step.name)}: pod's `, leaf), step, [`${podPath}.${leaf.path}`]));
}

const podSpec = (inputs: Inputs | undefined): Inputs | undefined =>
  (inputs as { spec?: { template?: { spec?: Inputs } } } | undefined)?.spec?.template?.spec;

interface Container {
  name?: string;
  image?: unknown;
  command?: unknown;
  args?: unknown;
  securityContext?: { privileged?: boolean; capabilities?: { add?: string[] } };
}

/** What runs in each container that is new; the rest of it is listed with the other differences. */
function containerLines(step: Step, old: Inputs, now: Inputs): Told[] {
  return ["initContainers", "containers"].flatMap((kind) =>
    items<Container>(now[kind]).flatMap((container, index) => {
      const isNew = index >= items(old[kind]).length;
      if (!isNew || typeof container !== "object" || container === null) return [];
      const { name, image, command, args } = container;
      const runs = `runs ${command === undefined ? "what the image says" : code(command)}${args === undefined ? "" : ` with ${code(args)}`}`;
      const line = known(`DaemonSet ${code(step.name)}: container ${code(name)} is ${code(image)} and ${runs}.`);
      const paths = ["name", "image", "command", "args"].filter(
        (key) => code((container as Inputs)[key]).length < longestValue,
      );
      const place = `${podPath}.${kind}[${index}]`;
      const hooks = allLeaves(undefined, container).filter(({ path }) =>
        /^(\w+Probe|lifecycle\.\w+)\.exec\./.test(path),
      );
      return [
        claim(
          line,
          step,
          paths.map((key) => `${place}.${key}`),
        ),
        // Shown whole with the other differences, too.
        ...hooks.map(({ path, after }) =>
          known(`DaemonSet ${code(step.name)}: container ${code(name)} also runs ${code(after)} (${code(path)}).`),
        ),
      ];
    }),
  );
}

function privileges(step: Step, spec: Inputs): Told {
  const containers = [...items<Container>(spec.initContainers), ...items<Container>(spec.containers)];
  const paths = items<{ hostPath?: { path: string } }>(spec.volumes).flatMap(({ hostPath }) => hostPath?.path ?? []);
  const words = [
    ...containers.flatMap((container) => {
      if (typeof container !== "object" || container === null) return [`containers ${container}`];
      const { privileged = false, capabilities } = container.securityContext ?? {};
      const which = containers.length > 1 ? `${container.name}: ` : "";
      const added = items(capabilities?.add ?? "the runtime's own").join(", ");
      return [`${which}${privileged ? "privileged" : "not privileged"}`, `${which}capabilities ${added}`];
    }),
    ...["hostPID", "hostNetwork", "hostIPC"].filter((key) => spec[key] === true),
    ...paths.map((path) => `the node's ${path}`),
  ];
  const line = known(`DaemonSet ${code(step.name)} is new; its pods have: ${words.map(code).join("; ")}.`);
  return step.op === "create" ? claim(line, step, ["(create)"]) : line;
}

const identityChain = /^(contrast-runtime:index:ContrastRuntime\$)?contrast-runtime:index:NodeInstaller\$[^$]+$/;

/** A policy that refuses nothing is none: what makes it one is said in a sentence, the rest is shown as it is. */
function policyLines(step: Step, ledger: Ledger): Told[] {
  const { op, type, urn, name, after } = step;
  const kind = type.split(":").at(-1);
  const limits = identityChain.test(urn.split("::")[2] ?? "") ? ", which limits what installers may do," : "";
  if (op === "delete") return [claim(known(`${kind} ${code(name)}${limits} is removed.`), step, ["(delete)"])];
  const spec = (after?.spec ?? {}) as Inputs;
  const isWeak = [
    spec.failurePolicy === "Ignore" ? "lets everything through when it fails" : "",
    kind === "ValidatingAdmissionPolicyBinding" && !items(spec.validationActions).includes("Deny")
      ? `refuses nothing: its actions are ${code(spec.validationActions)}`
      : "",
  ].filter((weakness) => weakness !== "");
  const warnings = isWeak.map((weakness) => known(`${kind} ${code(name)} ${weakness}.`));
  if (op === "create") {
    const made = kind?.endsWith("Binding")
      ? []
      : [claim(known(`${kind} ${code(name)}${limits} is new.`), step, ["(create)"])];
    return [...made, ...warnings];
  }
  const told = ledger.changes(step).filter(({ path }) => fieldsOf[type]?.test(path) && !path.startsWith("("));
  return [...warnings, ...told.map((leaf) => claim(changeLine(`${kind} ${code(name)}: `, leaf), step, [leaf.path]))];
}

function namespaceLines(step: Step): Told[] {
  const { op, name, before, after } = step;
  if (op === "delete") {
    return [claim(known(`Namespace ${code(name)} is deleted with everything in it.`), step, ["(delete)"])];
  }
  return allLeaves(before, after)
    .filter(({ path }) => path.includes("pod-security.kubernetes.io"))
    .map((leaf) => claim(changeLine(`Namespace ${code(name)}: `, leaf), step, [leaf.path]));
}

function accountLines(step: Step): Told[] {
  const { name, before, after } = step;
  if (after === undefined) return [];
  const mounts = (inputs: Inputs | undefined) => inputs !== undefined && inputs.automountServiceAccountToken !== false;
  if (mounts(before) === mounts(after) || (before === undefined && !mounts(after))) return [];
  const text = mounts(after) ? "is mounted into its pods unless they say otherwise" : "is no longer mounted by itself";
  const field = "automountServiceAccountToken";
  const change = before === undefined ? code(after[field]) : exchange(before[field], after[field]);
  return [claim(known(`ServiceAccount ${code(name)}: its token ${text} (${code(field)} ${change}).`), step, [field])];
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

/** Which account or subscription, and by which version of the plugin. */
function providerLines(step: Step, ledger: Ledger): Told[] {
  const { type, name, before, after } = step;
  if (!before || !after) return [];
  const provider = `Provider ${code(name)} (${code(type.split(":").at(-1))})`;
  return ledger
    .changes(step)
    .filter(({ path }) => fieldsOf[type]?.test(path) && !path.startsWith("(") && path !== "")
    .map((leaf) => claim(changeLine(`${provider}: `, leaf), step, [leaf.path]));
}

function clusterLines(step: Step, ledger: Ledger): Told[] {
  const { type, name, before, after, paths } = step;
  if (!before || !after) return [];
  if (isAnotherCluster(step)) {
    const [first, ...others] = anotherCluster(before, after);
    const told = ["(replace)", "clusterIdentifier", "renderYamlToDirectory"];
    return first ? [claim(first, step, told), ...others] : [];
  }
  const leaves = ledger.changes(step).filter(({ path }) => fieldsOf[type]?.test(path));
  // Credentials are secrets, which are the same text on both sides: where no path is named, they are all that can differ.
  const settings = leaves.filter(({ path, isHidden }) => !isHidden && !path.startsWith("("));
  const differs = before.kubeconfig !== after.kubeconfig;
  const isTold = differs || paths.includes("kubeconfig") || (step.op === "update" && settings.length === 0);
  return [
    ...settings.map((leaf) => claim(changeLine(`Provider ${code(name)}: `, leaf), step, [leaf.path])),
    ...(isTold
      ? [
          claim(
            unknown(`Provider ${code(name)} gets different credentials; whether they lead to the same cluster.`),
            step,
            ["kubeconfig", ...(leaves.length === 0 ? [""] : [])],
          ),
        ]
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
