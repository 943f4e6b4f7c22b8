import * as z from "zod";
import type { Container } from "../pod-template.ts";
import type { Problem } from "../problems.ts";
import { amount } from "../sizing.ts";
import type { PolicyImage, PolicyInput } from "./pod-policy.ts";
import { expand, type Pinned, runtimeFields } from "./variables.ts";

const id = z.number().int().min(0).max(4294967295);
const exec = z.object({ exec: z.object({ command: z.array(z.string()) }).optional() });

/** What a container's process depends on. Kubernetes' API server has checked the template's types; this is for others. */
export const processFields = z.object({
  command: z.array(z.string()).optional(),
  args: z.array(z.string()).optional(),
  workingDir: z.string().optional(),
  tty: z.boolean().optional(),
  stdin: z.boolean().optional(),
  env: z
    .array(
      z.object({
        name: z.string(),
        value: z.string().optional(),
        valueFrom: z
          .object({
            configMapKeyRef: z
              .object({ name: z.string(), key: z.string(), optional: z.boolean().optional() })
              .optional(),
            secretKeyRef: z.object({ name: z.string(), key: z.string(), optional: z.boolean().optional() }).optional(),
            fieldRef: z.object({ fieldPath: z.string() }).optional(),
            resourceFieldRef: z
              .object({ resource: z.string(), containerName: z.string().optional(), divisor: z.string().optional() })
              .optional(),
          })
          .optional(),
      }),
    )
    .optional(),
  envFrom: z
    .array(
      z.object({
        prefix: z.string().optional(),
        configMapRef: z.object({ name: z.string(), optional: z.boolean().optional() }).optional(),
        secretRef: z.object({ name: z.string(), optional: z.boolean().optional() }).optional(),
      }),
    )
    .optional(),
  securityContext: z
    .object({
      privileged: z.boolean().optional(),
      allowPrivilegeEscalation: z.boolean().optional(),
      readOnlyRootFilesystem: z.boolean().optional(),
      runAsUser: id.optional(),
      runAsGroup: id.optional(),
      procMount: z.string().optional(),
      capabilities: z.object({ add: z.array(z.string()).optional(), drop: z.array(z.string()).optional() }).optional(),
    })
    .optional(),
  livenessProbe: exec.optional(),
  readinessProbe: exec.optional(),
  startupProbe: exec.optional(),
  lifecycle: z
    .object({ postStart: exec.optional(), preStop: exec.optional(), stopSignal: z.string().optional() })
    .optional(),
});
export type ProcessFields = z.output<typeof processFields>;

export const podSecurity = z
  .object({
    runAsUser: id.optional(),
    runAsGroup: id.optional(),
    fsGroup: id.optional(),
    supplementalGroups: z.array(id).optional(),
    supplementalGroupsPolicy: z.string().optional(),
    sysctls: z.array(z.object({ name: z.string(), value: z.string() })).optional(),
  })
  .optional();
export type PodSecurity = z.output<typeof podSecurity>;

export interface PinnedProcess {
  args: Pinned[];
  env: Record<string, Pinned>;
  cwd: string;
  user: { uid: number; gid: number; groups: number[] } | { any: true };
  capabilities: string[];
  no_new_privileges: boolean;
  terminal: boolean;
}

/** containerd's set for a container that says nothing of capabilities (oci.DefaultUnixCaps). */
const defaultCapabilities =
  "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE".split(
    " ",
  );

type Report = (field: string, message: string) => void;

/** The process of a container, with the commands of its probes and hooks. */
export function processOf(
  container: Container,
  fields: ProcessFields,
  image: PolicyImage,
  pod: { security: PodSecurity; hostname: Pinned; input: PolicyInput },
  path: string,
  problems: Problem[],
): { process: PinnedProcess; commands: Pinned[][] } {
  const report: Report = (field, message) => problems.push({ field: `${path}.${field}`, message });
  const own = variablesOf(container, fields, pod.input, report);
  const env = new Map<string, Pinned>([["PATH", defaultPath]]);
  for (const variable of image.config.Env ?? []) {
    const at = variable.indexOf("=");
    env.set(variable.slice(0, at), variable.slice(at + 1));
  }
  if (fields.tty === true) env.set("TERM", "xterm");
  env.set("HOSTNAME", pod.hostname);
  // An explicit variable wins over the image's and HOSTNAME: containerd sets them in this order.
  for (const [name, value] of own) env.set(name, value);

  const expanded = (texts: readonly string[]) => texts.map((text) => expand(text, own));
  const entrypoint = fields.command === undefined ? [...(image.config.Entrypoint ?? [])] : expanded(fields.command);
  const rest =
    fields.args === undefined
      ? fields.command === undefined
        ? [...(image.config.Cmd ?? [])]
        : []
      : expanded(fields.args);
  const args = [...entrypoint, ...rest];
  if (args.length === 0) report("command", "is missing, and the image names no program either");

  const security = fields.securityContext;
  if (security?.privileged === true)
    report(
      "securityContext.privileged",
      "is true: a privileged container has the devices of the node that it runs on, for which no policy is made. Remove it, or give a policy.rego of your own in initdata",
    );
  if ((security?.procMount ?? "Default") !== "Default")
    report("securityContext.procMount", `is "${security?.procMount}", which the policy does not know`);
  // kubelet expands variables in the commands of probes, but only those that the template itself gives, as they stand.
  const given = new Map((fields.env ?? []).flatMap(({ name, value }) => (value === undefined ? [] : [[name, value]])));
  const probes = [fields.livenessProbe, fields.readinessProbe, fields.startupProbe].map((probe) =>
    probe?.exec?.command.map((text) => expand(text, given)),
  );
  const hooks = [fields.lifecycle?.postStart?.exec?.command, fields.lifecycle?.preStop?.exec?.command];
  const commands = [...probes, ...hooks].filter((command) => command !== undefined);
  return {
    process: {
      args,
      env: Object.fromEntries([...env].toSorted(([a], [b]) => (a < b ? -1 : 1))),
      cwd: fields.workingDir || image.config.WorkingDir || "/",
      user: userOf(fields, image, pod.security, report),
      capabilities: capabilitiesOf(security?.capabilities, report),
      no_new_privileges: security?.allowPrivilegeEscalation === false,
      terminal: fields.tty === true,
    },
    commands,
  };
}

/** containerd's, for an image that sets none (oci.WithDefaultPathEnv). */
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** containerd adds first and drops then, but drops ALL before all. */
function capabilitiesOf(
  wanted: { add?: string[] | undefined; drop?: string[] | undefined } | undefined,
  report: Report,
): string[] {
  const names = (list: string[] | undefined) => (list ?? []).map((name) => name.toUpperCase().replace(/^CAP_/, ""));
  const [add, drop] = [names(wanted?.add), names(wanted?.drop)];
  if (add.includes("ALL"))
    report(
      "securityContext.capabilities.add",
      "has ALL, which is what the node's kernel has: name those that are needed",
    );
  const all = new Set([...(drop.includes("ALL") ? [] : defaultCapabilities), ...add]);
  for (const name of drop) all.delete(name);
  return [...all].map((name) => `CAP_${name}`).toSorted();
}

function variablesOf(
  container: Container,
  fields: ProcessFields,
  input: PolicyInput,
  report: Report,
): Map<string, Pinned> {
  const found = new Map<string, Pinned>();
  const anything = { like: "^(?s:.*)$" };
  const allowed = (name: string) => input.allow?.env?.includes(name) === true;
  for (const [index, from] of (fields.envFrom ?? []).entries()) {
    const [kind, name, values] = from.secretRef
      ? (["Secret", from.secretRef.name, input.secrets?.[from.secretRef.name]] as const)
      : (["ConfigMap", from.configMapRef?.name ?? "", input.configMaps?.[from.configMapRef?.name ?? ""]] as const);
    if (values === undefined) report(`envFrom[${index}]`, unknownSource(kind, name));
    for (const [key, value] of Object.entries(values ?? {})) found.set(`${from.prefix ?? ""}${key}`, value);
  }
  for (const [index, { name, value, valueFrom }] of (fields.env ?? []).entries()) {
    const field = `env[${index}]`;
    if (allowed(name)) found.set(name, anything);
    else if (valueFrom === undefined) found.set(name, expand(value ?? "", found));
    else {
      const { configMapKeyRef: config, secretKeyRef: secret, fieldRef, resourceFieldRef } = valueFrom;
      const reference = config ?? secret;
      if (reference !== undefined) {
        const values = (config ? input.configMaps : input.secrets)?.[reference.name];
        const text = values?.[reference.key];
        if (values === undefined) report(field, unknownSource(config ? "ConfigMap" : "Secret", reference.name));
        else if (text !== undefined) found.set(name, text);
        else if (reference.optional !== true)
          report(field, `names the key "${reference.key}", which ${reference.name} does not have`);
      } else if (fieldRef !== undefined) {
        const pinned = fieldValue(fieldRef.fieldPath, input);
        if (pinned === undefined)
          report(field, `takes its value from ${fieldRef.fieldPath}, which is not known here: allow.env`);
        else found.set(name, pinned);
      } else if (resourceFieldRef !== undefined) {
        const text = resourceValue(resourceFieldRef, container);
        if (text === undefined)
          report(field, `takes its value from ${resourceFieldRef.resource}, which is not known here: allow.env`);
        else found.set(name, text);
      } else report(field, "takes its value from where the policy does not know: allow.env");
    }
  }
  return found;
}

const unknownSource = (kind: string, name: string): string =>
  `takes values from the ${kind} ${name}, which is not given: give it, or name the variable in allow.env to let the host choose`;

function fieldValue(path: string, { namespace, template }: PolicyInput): Pinned | undefined {
  if (path === "metadata.namespace") return namespace;
  const runtime = runtimeFields[path];
  if (runtime !== undefined) return runtime;
  if (path === "spec.serviceAccountName") {
    const name = template.spec.serviceAccountName;
    return typeof name === "string" ? name : "default";
  }
  const [, member = "", key = ""] = /^metadata\.(labels|annotations)\['([^']+)'\]$/.exec(path) ?? [];
  const entries = template.metadata?.[member];
  const value: unknown =
    typeof entries === "object" && entries !== null
      ? Object.entries(entries).find(([name]) => name === key)?.[1]
      : undefined;
  return typeof value === "string" ? value : undefined;
}

/** As kubelet divides and rounds up (resource.ExtractContainerResourceValue). */
function resourceValue(
  {
    resource,
    containerName,
    divisor = "1",
  }: { resource: string; containerName?: string | undefined; divisor?: string | undefined },
  container: Container,
): string | undefined {
  const [, kind, name = ""] = /^(limits|requests)\.([a-z0-9.-]+)$/.exec(resource) ?? [];
  if ((containerName ?? container.name) !== container.name) return undefined;
  const quantity = kind === "limits" ? container.resources?.limits?.[name] : container.resources?.requests?.[name];
  const [value, unit] = [
    quantity === undefined ? undefined : amount(quantity),
    amount(divisor === "0" ? "1" : divisor),
  ];
  if (value === undefined || unit === undefined || unit === 0) return undefined;
  return String(Math.ceil(value / unit - 1e-9));
}

function userOf(fields: ProcessFields, image: PolicyImage, pod: PodSecurity, report: Report): PinnedProcess["user"] {
  const context = fields.securityContext;
  // kubelet and containerd leave out the group that an image names beside its user.
  const [name = ""] = (image.config.User ?? "").split(":");
  const wantedUser = context?.runAsUser ?? pod?.runAsUser;
  const passwd = (image.passwd ?? "").split("\n").map((line) => line.split(":"));
  const groups = (image.group ?? "").split("\n").map((line) => line.split(":"));
  const text = wantedUser === undefined ? name || "0" : String(wantedUser);
  const entry = passwd.find(([login, , uid]) => (/^\d+$/.test(text) ? uid === text : login === text));
  const uid = /^\d+$/.test(text) ? Number(text) : entry && Number(entry[2]);
  const wantedGroup = context?.runAsGroup ?? pod?.runAsGroup;
  // containerd looks the user up in the image's /etc/passwd.
  const gid = wantedGroup ?? (entry === undefined ? 0 : Number(entry[3]));
  if (uid === undefined || Number.isNaN(uid) || Number.isNaN(gid)) {
    report("image", `runs as "${image.config.User}", which only its /etc/passwd and /etc/group explain: give them`);
    return { uid: 0, gid: 0, groups: [] };
  }
  const login = entry?.[0];
  const strict = pod?.supplementalGroupsPolicy === "Strict";
  const ofImage =
    strict || login === undefined ? [] : groups.filter(([, , , users]) => users?.split(",").includes(login));
  const further = [...ofImage.map((group) => Number(group[2])), ...(pod?.supplementalGroups ?? [])];
  const all = [gid, ...further, ...(pod?.fsGroup === undefined ? [] : [pod.fsGroup])];
  return { uid, gid, groups: [...new Set(all)].toSorted((a, b) => a - b) };
}
