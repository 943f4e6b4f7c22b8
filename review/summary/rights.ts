import { type Inputs, items } from "../preview/inputs.ts";
import type { Step } from "../preview/step.ts";
import { code, count } from "../text.ts";
import type { Ledger } from "./ledger.ts";
import { claim, known, type Told } from "./line.ts";

/** What a role allows from then on, and no longer. */
export function ruleLines(step: Step, ledger: Ledger): Told[] {
  const { op, type, name, before, after } = step;
  const kind = type.split(":").at(-1);
  if (op === "delete") return [claim(known(`${kind} ${code(name)} is removed.`), step, ["(delete)"])];
  const [old, now] = [rightsOf(before), rightsOf(after)];
  const rights = [
    ...rightsBeyond(now, old).map((right) => known(`${kind} ${code(name)} allows: ${right}.`)),
    ...rightsBeyond(old, now).map((right) => known(`${kind} ${code(name)} no longer allows: ${right}.`)),
  ];
  const changes = ledger.changes(step);
  const told = changes.filter(({ path }) => ruleField.test(path) || path === "(create)").map(({ path }) => path);
  // Written in another way, the rules may give the same rights.
  const lines: Told[] =
    rights.length > 0 || told.length === 0 || before === undefined
      ? rights
      : [known(`${kind} ${code(name)}: the rules are written in another way and allow the same.`)];
  const [first, ...others] = lines;
  return [
    ...(first ? [claim(first, step, told)] : []),
    ...others,
    ...changes.flatMap((leaf) => {
      const [, into] =
        /^metadata\.labels\["rbac\.authorization\.k8s\.io\/aggregate-to-([^"]*)"\]$/.exec(leaf.path) ?? [];
      if (into === undefined) return [];
      const text = leaf.after === undefined ? "are no longer added to" : "are added to";
      return [
        claim(known(`${kind} ${code(name)}: its rights ${text} those of ${code(into)} (${code(leaf.after)}).`), step, [
          leaf.path,
        ]),
      ];
    }),
    ...(changes.some(({ path }) => path.startsWith("aggregationRule"))
      ? [
          known(
            `${kind} ${code(name)} has the rights of whatever roles its rule selects: which those are changes with their labels.`,
          ),
        ]
      : []),
  ];
}

const ruleField = /^rules\[\d+\]\.(apiGroups|resources|resourceNames|nonResourceURLs|verbs)$/;

/** One verb on one resource, or on one object of it. */
interface Right {
  verb: string;
  /** "leases of coordination.k8s.io" */
  resource: string;
  /** "" for every one. */
  name: string;
}

function rightsOf(inputs: Inputs | undefined): Right[] {
  const list = (rule: Inputs, key: string) => items<unknown>(rule[key]).map(String);
  const orAll = (names: string[]) => (names.length > 0 ? names : [""]);
  return items<Inputs>(inputs?.rules).flatMap((rule) =>
    typeof rule !== "object" || rule === null
      ? []
      : orAll(list(rule, "apiGroups")).flatMap((group) =>
          [...list(rule, "resources"), ...list(rule, "nonResourceURLs")].flatMap((resource) =>
            orAll(list(rule, "resourceNames")).flatMap((name) =>
              list(rule, "verbs").map((verb) => ({
                verb,
                resource: group ? `${resource} of ${group}` : resource,
                name,
              })),
            ),
          ),
        ),
  );
}

/** Rights told of one role, at most; those that lead to others come first. */
const most = 100;

/** The rights of the one that the other lacks, verbs and names together where they go together. */
function rightsBeyond(rights: Right[], others: Right[]): string[] {
  const held = new Set(others.map((right) => JSON.stringify(right)));
  const extra = rights.filter((right) => !held.has(JSON.stringify(right)));
  const verbs = Map.groupBy(extra, ({ resource, name }) => JSON.stringify([resource, name]));
  const names = Map.groupBy(verbs.values(), (same) =>
    JSON.stringify([same.map(({ verb }) => verb), same[0]?.resource, same[0]?.name === ""]),
  );
  const told = [...names.values()].flatMap((alike) => {
    const [same = []] = alike;
    const [first] = same;
    if (first === undefined) return [];
    const { resource } = first;
    const given = same.map(({ verb }) => verb);
    const named = alike.flatMap(([right]) => right?.name || []);
    const danger = dangerOf(given, resource);
    // A name that is cut is told with its digest; what leads to more rights is told in words.
    const text = code(`${given.join(", ")} ${resource}${named.length > 0 ? ` named ${named.join(", ")}` : ""}`);
    return [
      { text: danger === undefined ? text : `${text}, **which is ${danger}**`, isDangerous: danger !== undefined },
    ];
  });
  const sorted = [...told.filter(({ isDangerous }) => isDangerous), ...told.filter(({ isDangerous }) => !isDangerous)];
  const rest = sorted.length - most;
  return [
    ...sorted.slice(0, most).map(({ text }) => text),
    ...(rest > 0 ? [`${count(rest, "more kind")} of rights, which are not shown`] : []),
  ];
}

/** Rights by which more rights, or a node, can be had: Kubernetes' own list of them, by its RBAC good practices. */
function dangerOf(verbs: string[], resource: string): string | undefined {
  const [kind = ""] = resource.split(" of ");
  if (verbs.includes("*")) return "every verb, those that are not there yet, too";
  if (kind === "*" || kind.startsWith("*/")) return "every resource, those that are not there yet, too";
  if (/ of \*$/.test(resource)) return "every API group";
  const leading = verbs.filter((verb) => ["escalate", "bind", "impersonate"].includes(verb));
  if (leading.length > 0) return `${leading.join(" and ")}: a way to the rights of others`;
  return Object.hasOwn(powerful, kind) ? powerful[kind] : undefined;
}

const powerful: Record<string, string> = {
  secrets: "access to secrets",
  "pods/exec": "a command in any pod",
  "pods/attach": "a command in any pod",
  "pods/ephemeralcontainers": "a container in any pod",
  "pods/proxy": "access to any pod's ports",
  "pods/portforward": "access to any pod's ports",
  "nodes/proxy": "a command in any pod of a node",
  "nodes/exec": "a command in any pod of a node",
  "services/proxy": "access to any service",
  "serviceaccounts/token": "tokens of service accounts",
  "certificatesigningrequests/approval": "certificates for anybody",
  certificatesigningrequests: "certificates",
  signers: "certificates for anybody",
  roles: "power over rights",
  clusterroles: "power over rights",
  rolebindings: "power over rights",
  clusterrolebindings: "power over rights",
  mutatingwebhookconfigurations: "power over what is admitted",
  validatingwebhookconfigurations: "power over what is admitted",
  validatingadmissionpolicies: "power over what is admitted",
  validatingadmissionpolicybindings: "power over what is admitted",
  mutatingadmissionpolicies: "power over what is admitted",
  mutatingadmissionpolicybindings: "power over what is admitted",
  persistentvolumes: "a way to a node's files",
};

/** Who has which role from then on. */
export function bindingLines(step: Step, ledger: Ledger): Told[] {
  const { op, type, name, before, after } = step;
  const kind = type.split(":").at(-1);
  if (op === "delete") return [claim(known(`${kind} ${code(name)} is removed.`), step, ["(delete)"])];
  const [old, now] = [holders(before), holders(after)];
  if (old === now && before) return [];
  const line = known(`${kind} ${code(name)}: ${now}${before ? ` (before: ${old})` : ""}.`);
  const told = ledger.changes(step).filter(({ path }) => bindingField.test(path) || path === "(create)");
  return [
    claim(
      line,
      step,
      told.map(({ path }) => path),
    ),
    ...everybody(step),
  ];
}

const bindingField = /^(roleRef\.(kind|name)|subjects\[\d+\]\.(kind|name|namespace))$/;

function holders(inputs: Inputs | undefined): string {
  const { roleRef, subjects } = (inputs ?? {}) as { roleRef?: { kind?: string; name?: string }; subjects?: unknown };
  const who = items<Inputs | string>(subjects).map((subject) =>
    typeof subject === "object" && subject !== null
      ? code(`${subject.kind} ${subject.namespace ?? ""}/${subject.name}`)
      : code(subject),
  );
  return `${who.join(", ")} has ${code(`${roleRef?.kind ?? "role"} ${roleRef?.name}`)}`;
}

/** Subjects that are not one account, and roles that are all rights. */
function everybody({ type, name, after }: Step): Told[] {
  const { roleRef, subjects } = (after ?? {}) as { roleRef?: { name?: string }; subjects?: unknown };
  const groups = items<Inputs>(subjects).flatMap((subject) =>
    typeof subject === "object" &&
    subject !== null &&
    /^system:(masters|authenticated|unauthenticated|anonymous|serviceaccounts(:.*)?)$/.test(String(subject.name))
      ? [String(subject.name)]
      : [],
  );
  const kind = type.split(":").at(-1);
  return [
    ...groups.map((group) => known(`${kind} ${code(name)}: ${code(group)} is **more than one account**.`)),
    ...(["cluster-admin", "admin", "edit"].includes(roleRef?.name ?? "")
      ? [known(`${kind} ${code(name)}: ${code(roleRef?.name)} is **a role of Kubernetes with nearly every right**.`)]
      : []),
  ];
}
