import { mkdtempSync, rmSync } from "node:fs";
import { copyFile, mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { podTemplate } from "../../components/installer-pod.ts";
import { systemNamespace as namespace } from "../../node-installer/kubernetes/names.ts";
import { podSecurity } from "../../node-installer/kubernetes/pod-security.ts";
import type { InstallSpec } from "../../node-installer/runtime/spec.ts";
import { buildPrograms } from "../../tools/build.ts";
import { buildImage } from "../../tools/image/build.ts";
import { debianFiles } from "../../tools/programs/debian.ts";
import { toStderr } from "../../tools/programs/progress.ts";
import { busyboxPod, until, useCluster } from "./harness.ts";
import { NodeWithInstaller } from "./installer-on-node.ts";
import { type SmallPayload, smallPayload, specOf } from "./small-payloads.ts";

/**
 * The installer's pod may do what it needs and nothing more: with the permissions of podSecurity it works, and without any
 * one of them it does not. On this node each of them matters: as some administrators set it up, containerd's file and its
 * directory belong to another user.
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
  image = (await cluster().inNetwork(process.execPath, "tools/cli.ts", ...push)).trim();
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
});
afterAll(() => rmSync(directory, { recursive: true }));

type PodSpec = ReturnType<typeof installerPod>["spec"];

/** The pod as the program makes it, but for a single run of one command. */
function installerPod(name: string, command: string) {
  const spec = JSON.parse(specOf(group, [payload.runtime])) as InstallSpec;
  const args = { group, image, specName: "spec", spec, tolerations: [], priorityClass: "system-node-critical" };
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
