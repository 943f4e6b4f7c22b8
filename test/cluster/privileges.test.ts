import { mkdtempSync, rmSync } from "node:fs";
import { copyFile, mkdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { installerPod as settings } from "../../components/config/installer-pod-schema.ts";
import { podTemplate } from "../../components/installer-pod.ts";
import { podSecurity } from "../../components/manifests/pod-security.ts";
import { parseBundle } from "../../node-installer/host/bundle.ts";
import {
  bundleAudience,
  bundleReader,
  bundleTokenHeader,
  healthPort,
  installerName,
  systemNamespace as namespace,
} from "../../runtime/names.ts";
import type { InstallSpec } from "../../runtime/spec.ts";
import { buildImage } from "../../tools/image/build.ts";
import { buildPrograms } from "../../tools/image/bundle.ts";
import { enterNetwork } from "../../tools/local-cluster/layout.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { run as runProgram } from "../../tools/process/run.ts";
import { debianFiles } from "../../tools/programs/debian.ts";
import { busyboxPod, until, useCluster } from "./harness.ts";
import { InstallerDaemonSet } from "./installer-daemon-set.ts";
import { NodeWithInstaller } from "./installer-on-node.ts";
import { podMonitorDefinition } from "./pod-monitor.ts";
import { type SmallPayload, smallPayload, specOf } from "./small-payloads.ts";

/**
 * The installer's pod may do what it needs and nothing more, and its port gives nobody more than he should have: with
 * the permissions of podSecurity it works, and without any one of them it does not. On this node each of them matters: as
 * some administrators set it up, containerd's file and its directory belong to another user.
 */
const cluster = useCluster("privileges");
const node = "node-1";
const group = "privileges";
const directory = mkdtempSync(join(tmpdir(), "privileges-"));
const configuration = "/etc/containerd/config.toml";
const owner = "1234:2345";
let payload: SmallPayload;
let image = "";
let access = "";

/** Puts the programs for access control lists on the node, whose Debian tree lacks them. */
async function placeAclTools(): Promise<void> {
  const files = await debianFiles({ name: "acl", suite: "bookworm", packages: ["acl"] }, toStderr);
  const target = join(await new NodeWithInstaller(cluster(), node).root(), "opt/test");
  await mkdir(target, { recursive: true });
  for (const program of ["getfacl", "setfacl"]) await copyFile(join(files, "usr/bin", program), join(target, program));
}
const accessList = () => cluster().onNode(node, "/opt/test/getfacl", "--absolute-names", "--numeric", configuration);

beforeAll(async () => {
  payload = await smallPayload(directory, "small");
  const { nodeInstaller } = await buildPrograms();
  const layout = join(directory, "image");
  await buildImage({ layoutDir: layout, program: nodeInstaller, payloads: [payload] });
  const { registry, onNode, apply } = cluster();
  const push = ["image", "push", "--layout", layout, "--registry", `http://${registry}`, "--repository", "installer"];
  image = (await cluster().inNetwork(process.execPath, "tools/cli/main.ts", ...push)).trim();
  await apply(
    { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } },
    {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "spec", namespace },
      data: { "spec.json": specOf(group, [payload.runtime]) },
    },
  );
  await onNode(node, "chown", "-R", owner, "/etc/containerd");
  await onNode(node, "chmod", "0640", configuration);
  await new NodeWithInstaller(cluster(), node).load();
});
afterAll(() => rmSync(directory, { recursive: true }));

type PodSpec = ReturnType<typeof installerPod>["spec"];

/** The pod as the program makes it, but for a single run of one command. */
function installerPod(name: string, command: string) {
  const spec = JSON.parse(specOf(group, [payload.runtime])) as InstallSpec;
  const args = {
    ...{ group, image, specName: "spec", spec, tolerations: [], priorityClass: "system-node-critical" },
    installerPod: settings.parse({}),
  };
  const template = JSON.parse(JSON.stringify(podTemplate(args).spec)) as {
    hostPID: boolean;
    containers: { securityContext: { capabilities: { add: string[] } }; [key: string]: unknown }[];
  };
  const [container] = template.containers;
  if (container === undefined) throw new Error("the template has no container");
  const { readinessProbe: _readiness, livenessProbe: _liveness, ...rest } = container;
  const once = { ...rest, args: [command, "--spec", "/etc/contrast/spec.json", "--host-root", "/host"] };
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace },
    spec: {
      ...template,
      containers: [once],
      nodeName: node,
      restartPolicy: "Never",
      serviceAccountName: "default",
      automountServiceAccountToken: false,
    },
  };
}

interface Ended {
  status: { containerStatuses?: { state: { terminated?: { exitCode: number } } }[] };
}

/** Runs a command of the installer to its end; returns its exit code and its whole output. */
async function run(name: string, command: string, change: (spec: PodSpec) => void = () => undefined) {
  const pod = installerPod(name, command);
  change(pod.spec);
  await cluster().apply(pod);
  const code = await until(`the pod ${name} ends`, async () => {
    const { status } = await cluster().get<Ended>("pod", name, "-n", namespace);
    return status.containerStatuses?.[0]?.state.terminated?.exitCode;
  });
  return { code, output: await cluster().kubectl("logs", name, "-n", namespace) };
}

/** Everything that a failed installation must not have touched, and the daemon's process. */
const state = () =>
  cluster().onNode(
    node,
    "sh",
    "-c",
    `find /etc/containerd /etc/systemd/system -printf '%p %y %m %U:%G %l\\n' | sort; sha256sum ${configuration}
     systemctl show containerd.service --property=MainPID,InvocationID; systemctl list-units --all 'contrast*' --no-legend`,
  );

const capabilities = podSecurity.container.capabilities.add;
const withoutOne: { missing: string; says: RegExp; change: (spec: PodSpec) => void }[] = [
  ...capabilities.map((capability) => ({
    missing: capability,
    says: capability === "SYS_CHROOT" ? /chroot/ : /the installer is not allowed to do this/,
    change: ({ containers: [container] }: PodSpec) => {
      const { add } = container?.securityContext.capabilities ?? { add: [] };
      add.splice(add.indexOf(capability), 1);
    },
  })),
  {
    missing: "hostPID",
    says: /systemctl/,
    change: (spec) => {
      spec.hostPID = false;
    },
  },
];

test.each(withoutOne)("without $missing it ends with a sentence, and the node is as before", async (one) => {
  const before = await state();
  const { code, output } = await run(
    `without-${one.missing.toLowerCase().replaceAll("_", "-")}`,
    "install",
    one.change,
  );
  expect(code, output).toBeGreaterThan(0);
  expect(output).toMatch(one.says);
  expect(output).not.toMatch(/^ +at /m);
  expect(await state()).toBe(before);
});

test("with all of them it installs, and the file keeps its owner, its mode and its access control list", async () => {
  await placeAclTools();
  await cluster().onNode(node, "/opt/test/setfacl", "--modify", "user:4321:r", configuration);
  await new NodeWithInstaller(cluster(), node).load();
  access = await accessList();
  const { code, output } = await run("with-all", "install");
  expect(code, output).toBe(0);
  expect(await cluster().onNode(node, "cat", configuration)).toContain(payload.runtime.handler);
  expect((await cluster().onNode(node, "stat", "--format=%a %u:%g", configuration)).trim()).toBe(`640 ${owner}`);
  expect(access).toContain("user:4321:r--");
  expect(await accessList()).toBe(access);
});

/** The most that a tenant may do where Pod Security is "restricted". */
const restricted = {
  automountServiceAccountToken: false,
  securityContext: {
    runAsUser: 65534,
    runAsGroup: 65534,
    runAsNonRoot: true,
    seccompProfile: { type: "RuntimeDefault" },
  },
};

/** A pod that says in its arguments and by its own file system that it runs from the runtime's directory. */
async function startTenant(directory: string): Promise<void> {
  const labels = { "pod-security.kubernetes.io/enforce": "restricted" };
  await cluster().apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: "tenant", labels } });
  // Busybox takes its own name for a command, unless that is "busybox".
  const command = `cp /bin/busybox ${directory}/ &&
    exec ${directory}/busybox sh -c 'trap exit TERM; while :; do sleep 1; done' ${directory}/bin/shim`;
  const mount = { name: "own", mountPath: directory };
  const pod = busyboxPod(cluster(), "tenant", restricted, command);
  const containers = pod.spec.containers.map((container) => ({
    ...container,
    securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
    volumeMounts: [mount],
  }));
  const metadata = { ...pod.metadata, namespace: "tenant" };
  const spec = { ...pod.spec, nodeName: node, containers, volumes: [{ name: "own", emptyDir: {} }] };
  await cluster().apply({ ...pod, metadata, spec });
  await cluster().kubectl("wait", "pod/tenant", "-n", "tenant", "--for=condition=Ready", "--timeout=60s");
  await until("the tenant's program runs", async () => {
    const { stdout } = await cluster().tryOnNode(node, ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]);
    return stdout.includes(`${directory}/busybox sh -c`) || undefined;
  });
}

test("while a program of the runtime runs, it is not uninstalled, and the program is named without its arguments", async () => {
  const directory = `/opt/edgeless/${payload.runtime.handler}`;
  await startTenant(directory);
  // As root with all capabilities, like a shim, so the installer's container may not look at it.
  await cluster().onNode(node, "cp", "/bin/sleep", `${directory}/bin/left-behind`);
  await cluster().onNode(node, "systemd-run", "--unit=left-behind", `${directory}/bin/left-behind`, "1000000");
  const { code, output } = await run("uninstall-used", "uninstall");
  expect(code, output).toBe(3);
  expect(output).toMatch(/process left-behind \(\d+\)/);
  expect(output).not.toMatch(/busybox|1000000|while :/);
  await cluster().onNode(node, "systemctl", "stop", "left-behind.service");
});

test("with all of them it uninstalls, although a tenant's pod says that it runs from the runtime's directory", async () => {
  const { code, output } = await run("uninstall", "uninstall");
  expect(code, output).toBe(0);
  expect(await cluster().onNode(node, "cat", configuration)).not.toContain(payload.runtime.handler);
  expect(await accessList()).toBe(access);
  expect((await cluster().tryOnNode(node, ["ls", "/opt/edgeless"])).code).not.toBe(0);
});

interface InstallerPods {
  items: {
    spec: { containers: { ports?: { name: string; containerPort: number }[] }[] };
    status: { podIP?: string; phase?: string };
  }[];
}
const installerPods = async (labels: Record<string, string>) => {
  const selector = Object.entries(labels).map((pair) => pair.join("="));
  const { items } = await cluster().get<InstallerPods>("pods", "-n", namespace, "-l", selector.join());
  return items.filter(({ status }) => status.phase === "Running");
};

/** What every pod of the cluster reaches: the installer's port, asked by the tenant's pod from above. */
describe("the installer's port, while a retired handler is kept by another tenant's pod", () => {
  const words = { namespace: "other-tenant", pod: "the-basket", process: "process-of-the-basket" };
  const requested = (token: string) => `${bundleTokenHeader}: ${token}`;
  let address = "";

  /** From the tenant's pod. The program prints the body only of what is no error. */
  async function ask(path: string, ...headers: string[]): Promise<{ code: number; text: string }> {
    const words = ["wget", "-S", "-O", "-", ...headers.map((header) => `--header=${header}`)];
    const url = `http://${address}:${healthPort}${path}`;
    const { stdout, stderr } = await cluster().tryKubectl(["exec", "-n", "tenant", "tenant", "--", ...words, url]);
    const code = /HTTP\/1\.1 (\d{3}) /.exec(stderr)?.[1];
    if (code === undefined) throw new Error(`no answer to GET ${path}: ${stdout}${stderr}`);
    return { code: Number(code), text: stderr + stdout };
  }
  const token = async (account: string, of: string, ...more: string[]) =>
    (await cluster().kubectl("create", "token", account, "-n", of, ...more)).trim();
  const own = `--audience=${bundleAudience(node)}`;

  beforeAll(async () => {
    const { handler } = payload.runtime;
    const installer = new InstallerDaemonSet(cluster(), { group, image, nodeNames: [node] });
    await installer.apply(specOf(group, [payload.runtime]));
    const { code, stdout, stderr } = await installer.rollout();
    expect(code, stdout + stderr).toBe(0);
    await cluster().apply(
      { apiVersion: "node.k8s.io/v1", kind: "RuntimeClass", metadata: { name: handler }, handler },
      { apiVersion: "v1", kind: "Namespace", metadata: { name: words.namespace } },
    );
    const pod = busyboxPod(
      cluster(),
      words.pod,
      { nodeName: node, runtimeClassName: handler },
      `: ${words.process}; trap exit TERM; sleep inf & wait`,
    );
    await cluster().apply({ ...pod, metadata: { ...pod.metadata, namespace: words.namespace } });
    const ready = ["--for=condition=Ready", "--timeout=60s"];
    await cluster().kubectl("wait", `pod/${words.pod}`, "-n", words.namespace, ...ready);
    await installer.apply(specOf(group, []));
    // Kubernetes, unlike the port, learns what keeps it.
    const blocked = await until(
      "the retired handler is blocked",
      async () => {
        const status = await installer.status(node);
        return status?.state === "blocked" ? status : undefined;
      },
      120_000,
    );
    expect(blocked.pods).toContain(`${words.namespace}/${words.pod}`);
    await cluster().apply(
      ...parseAllDocuments(await readFile("examples/ci/fleet-reader.yaml", "utf8")).map((each) => each.toJS()),
    );
    const [running] = await installerPods({ "app.kubernetes.io/name": installerName(group) });
    address = running?.status.podIP ?? "";
  }, 400_000);

  test("names no pod, no namespace and no process to a tenant, and gives him no bundle", async () => {
    expect((await ask("/snapshot")).code).toBe(404);
    expect((await ask("/bundle")).code).toBe(401);
    const [ready, metrics] = [await ask("/readyz"), await ask("/metrics")];
    // What the spec lists is served.
    expect(ready.code).toBe(200);
    expect(ready.text).toContain('"state":"blocked"');
    expect(metrics.code).toBe(200);
    expect(metrics.text).toMatch(/^contrast_installer_state\{.*state="blocked".*\} 1$/m);
    for (const { text } of [ready, metrics])
      for (const word of [...Object.values(words), "containerd-shim"]) expect(text).not.toContain(word);
  });

  test("gives the bundle for a token of its reader, for this node, of a short life, and for no other", async () => {
    const good = await ask("/bundle", requested(await token(bundleReader, namespace, own)));
    expect(good.code, good.text).toBe(200);
    const others = {
      "of a tenant's account": await token("default", "tenant", own),
      "of the fleet reader": await token("fleet-reader", namespace, own),
      "of the installer": await token(installerName(group), namespace, own),
      "for another node": await token(bundleReader, namespace, `--audience=${bundleAudience("node-2")}`),
      "for the API server": await token(bundleReader, namespace),
      "that lives for a day": await token(bundleReader, namespace, own, "--duration=24h"),
      "that nobody made": "eyJhbGciOiJSUzI1NiJ9.eyJpYXQiOjEsImV4cCI6Mn0.AAAA",
    };
    for (const [name, made] of Object.entries(others))
      expect((await ask("/bundle", requested(made))).code, name).toBe(403);
  });

  test("its bundle is collected with the fleet reader's token, through the API server", async () => {
    const kubeconfig = parse(cluster().kubeconfig) as { users: { user: object }[] };
    const reader = await token("fleet-reader", namespace);
    for (const one of kubeconfig.users) one.user = { token: reader };
    const output = join(directory, "bundles");
    const collect = ["tools/cli/main.ts", "review", "collect", "--output", output];
    const [command = "", ...args] = [...enterNetwork(cluster().name), process.execPath, ...collect];
    const env = { ...process.env, KUBECONFIG_CONTENT: JSON.stringify(kubeconfig) };
    const { code, stdout, stderr } = await runProgram(command, args, { env });
    expect(code, stdout + stderr).toBe(0);
    const text = await readFile(join(output, group, `${node}.json`), "utf8");
    const bundle = parseBundle(text);
    expect(bundle?.node).toBe(node);
    expect(bundle?.serving?.handlers).toHaveProperty(payload.runtime.handler);
    for (const word of Object.values(words)) expect(text).not.toContain(word);
  });

  test("the API server takes the examples for monitoring, and they are about the installers' pods", async () => {
    await cluster().apply(podMonitorDefinition);
    await cluster().kubectl("wait", "--for=condition=Established", `crd/${podMonitorDefinition.metadata.name}`);
    interface Example {
      metadata: { name: string };
      spec: {
        selector: { matchLabels: Record<string, string> };
        podSelector: { matchLabels: Record<string, string> };
        podMetricsEndpoints: { port: string }[];
        ingress: { ports: { port: number }[] }[];
      };
    }
    const example = async (name: string) =>
      parse(await readFile(`examples/monitoring/${name}.yaml`, "utf8")) as Example;
    const [policy, monitor] = [await example("network-policy"), await example("pod-monitor")];
    await cluster().apply(policy, monitor);
    // What it does not know, it refuses: so it did know all of them.
    const misspelled = { ...monitor, spec: { ...monitor.spec, podMetricEndpoints: [] } };
    const apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    expect((await cluster().tryKubectl(apply, JSON.stringify(misspelled))).stderr).toContain("podMetricEndpoints");

    for (const { matchLabels } of [policy.spec.podSelector, monitor.spec.selector])
      expect(await installerPods(matchLabels)).toHaveLength(1);
    const [running] = await installerPods(monitor.spec.selector.matchLabels);
    const ports = running?.spec.containers.flatMap((container) => container.ports ?? []) ?? [];
    expect(monitor.spec.podMetricsEndpoints.map(({ port }) => port)).toEqual(ports.map(({ name }) => name));
    expect(policy.spec.ingress.flatMap((rule) => rule.ports.map(({ port }) => port))).toEqual(
      ports.map(({ containerPort }) => containerPort),
    );
  });
});
