import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { installerName, systemNamespace, ticketNames } from "../../runtime/names.ts";
import { packageRoot } from "../../tools/files/project.ts";
import { buildImage } from "../../tools/image/build.ts";
import { buildPrograms } from "../../tools/image/bundle.ts";
import { clusterLayout, enterNetwork, nodeLayout } from "../../tools/local-cluster/layout.ts";
import { stopUnit } from "../../tools/local-cluster/units.ts";
import { toStderr } from "../../tools/process/progress.ts";
import type { RunResult } from "../../tools/process/run.ts";
import { type EngineProject, engineProject } from "../engine/harness.ts";
import { busyboxPod, clusterNameFor, until, useCluster } from "./harness.ts";
import { type SmallPayload, smallPayload } from "./small-payloads.ts";
import { makeUserKey, startSshServer, type UserKey } from "./ssh-server.ts";

/**
 * Bare metal: the program, under the real engine, prepares and joins hosts with a real sshd. One of them is a member of the
 * cluster from the start; the other joins with a bootstrap token and dies during a rollout.
 */
const purpose = "metal";
const stack = clusterNameFor(purpose);
const nodes = [{ name: "node-1" }, { name: "node-2" }];
const cluster = useCluster(purpose, nodes);
let project: EngineProject;
let user: UserKey;
let image = "";
const hostKeys: Record<string, string> = {};
const payloads: Record<string, SmallPayload> = {};

const token = { id: "c0ffee", secret: "0123456789abcdef" };
const configurationFile = "/etc/containerd/config.toml";
let original = "";
const layout = clusterLayout(stack);
/** The kernel's own value, and ours. */
const instances = { before: "128", after: "8192" };
const instancesFile = "/proc/sys/fs/inotify/max_user_instances";

beforeAll(async () => {
  user = await makeUserKey();
  for (const { name } of nodes) {
    hostKeys[name] = await startSshServer(cluster(), name, user);
    await cluster().onNode(name, "sh", "-ec", asOnMetal);
  }
  await cluster().onNode("node-1", "sh", "-ec", asMember);
  await cluster().onNode("node-2", "sh", "-ec", asStranger);
  await cluster().kubectl("delete", "node", "node-2");
  await cluster().apply(...admission());
  original = await configurationOf("node-1");

  project = await engineProject({
    directory: packageRoot,
    stack,
    prefix: enterNetwork(stack),
  });
  for (const name of ["first", "second", "third"]) payloads[name] = await makePayload(name);
  image = await pushInstaller();
});
afterAll(async () => project?.remove());

/** The node must not change the machine's kernel parameters, so it has its own file in place of this one. */
const asOnMetal = `echo ${instances.before} >/etc/instances; mount --bind /etc/instances ${instancesFile}`;
/** Where kubeadm leaves the kubelet's credentials. */
const asMember = "ln -s node.kubeconfig /etc/kubernetes/kubelet.conf";
const asStranger = "systemctl stop kubelet; rm /etc/kubernetes/node.kubeconfig";

/** What `kubeadm token create` and `kubeadm init` make: a token, its permissions, and the approval of its requests. */
const admission = () => [
  {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: `bootstrap-token-${token.id}`, namespace: "kube-system" },
    type: "bootstrap.kubernetes.io/token",
    stringData: {
      "token-id": token.id,
      "token-secret": token.secret,
      "usage-bootstrap-authentication": "true",
      "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
    },
  },
  ...["system:node-bootstrapper", "system:certificates.k8s.io:certificatesigningrequests:nodeclient"].map((role) => ({
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRoleBinding",
    metadata: { name: `bootstrappers:${role}` },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: role },
    subjects: [
      { apiGroup: "rbac.authorization.k8s.io", kind: "Group", name: "system:bootstrappers:kubeadm:default-node-token" },
    ],
  })),
];

/** What `kubeadm join` does: the kubelet gets the token and uses it to request its own certificate. */
function joinCommand(secret = token.secret): string {
  const { clusters } = parse(cluster().kubeconfig) as { clusters: unknown[] };
  const bootstrap = {
    apiVersion: "v1",
    kind: "Config",
    "current-context": "join",
    contexts: [{ name: "join", context: { cluster: stack, user: "join" } }],
    clusters,
    users: [{ name: "join", user: { token: `${token.id}.${secret}` } }],
  };
  return `set -x
echo joined >>/etc/joins
echo '${JSON.stringify(bootstrap)}' >/etc/kubernetes/bootstrap-kubelet.conf
mkdir -p /etc/systemd/system/kubelet.service.d
cat >/etc/systemd/system/kubelet.service.d/join.conf <<EOF
[Service]
ExecStart=
$(sed -n 's|--kubeconfig=[^ ]*|--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf|p' /etc/systemd/system/kubelet.service)
EOF
systemctl daemon-reload
systemctl restart kubelet
timeout 60 sh -c 'until [ -e /etc/kubernetes/kubelet.conf ]; do sleep 0.2; done'
`;
}

async function makePayload(name: string): Promise<SmallPayload> {
  const payload = await smallPayload(join(project.directory, "payloads"), name);
  await writeFile(join(payload.directory, "manifest.json"), JSON.stringify(payload.manifest));
  return payload;
}

async function pushInstaller(): Promise<string> {
  const layoutDir = join(project.home, "image");
  const { nodeInstaller } = await buildPrograms();
  await mkdir(layoutDir);
  await buildImage({ layoutDir, program: nodeInstaller, payloads: Object.values(payloads) }, toStderr);
  const program = join(packageRoot, ".local/bin/contrast-runtime");
  const target = ["--registry", `http://${cluster().registry}`, "--repository", "contrast-node-installer"];
  return (await cluster().inNetwork(program, "image", "push", "--layout", layoutDir, ...target)).trim();
}

interface Settings {
  payloads: string[];
  hosts?: string[];
  keys?: Record<string, string>;
  join?: string;
  user?: string;
  group?: object;
}

/** Writes the stack's file. Secrets are set with the engine's command line. */
async function configure({ payloads: names, hosts, keys = hostKeys, join: command, ...rest }: Settings): Promise<void> {
  const file = join(project.directory, `Pulumi.${stack}.yaml`);
  const chosen = cluster().nodes.filter(({ name }) => hosts?.includes(name) ?? true);
  const config = {
    "contrast-runtime:installerImage": image,
    "contrast-runtime:cluster": { kind: "kubeconfig", name: stack },
    "contrast-runtime:groups": {
      metal: {
        distribution: "containerd",
        nodes: {
          hosts: chosen.map(({ name, address }) => ({ name, address, hostKey: keys[name] })),
          ssh: { user: rest.user ?? "ops" },
        },
        minimumNodes: 1,
        runtimes: names.map((name) => ({ platform: "local", payload: `payloads/${name}/manifest.json` })),
        ...rest.group,
      },
    },
  };
  await writeFile(file, stringify({ config }));
  const secrets = {
    "cluster.kubeconfig": cluster().kubeconfig,
    "groups.metal.nodes.ssh.privateKey": user.privateKey,
    ...(command !== undefined && { "groups.metal.nodes.joinCommand": command }),
  };
  const words = Object.entries(secrets).flatMap(([path, value]) => ["--secret", `contrast-runtime:${path}=${value}`]);
  await project.mustWork(project.pulumi("config", "set-all", "--path", ...words));
}

const configurationOf = (node: string) => cluster().onNode(node, "cat", configurationFile);
const read = async (node: string, file: string) => (await cluster().onNode(node, "cat", file)).trim();
const handlerOf = (payload: string): string => payloads[payload]?.runtime.handler ?? "";

/** Our files on a node, except logs and backups, which are for the admin to read and remove. */
async function traces(node: string): Promise<string[]> {
  const script = "find /etc /opt /var/lib -xdev -path '*contrast*' ! -name '*.bak' 2>/dev/null; true";
  const found = await cluster().onNode(node, "sh", "-c", script);
  return found
    .split("\n")
    .filter((file) => file !== "" && !file.includes("/containerd/io.") && !file.startsWith("/opt/test"));
}

/** A command's result, after checking that its output contains none of the secrets. */
async function withoutSecrets(result: Promise<RunResult>): Promise<RunResult> {
  const { code, stdout, stderr } = await result;
  for (const secret of [token.secret, "PRIVATE KEY", "client-key-data"]) {
    expect(stdout).not.toContain(secret);
    expect(stderr).not.toContain(secret);
  }
  return { code, stdout, stderr };
}

test("another host that answers is refused by its key, and gets nothing", async () => {
  await configure({
    payloads: ["first"],
    // The other host would go on, and join the cluster.
    hosts: ["node-1"],
    join: joinCommand(),
    keys: { ...hostKeys, "node-1": hostKeys["node-2"] ?? "" },
  });
  const { code, stdout } = await withoutSecrets(project.up());
  expect(code).not.toBe(0);
  expect(stdout).toContain("host key mismatch");
  expect(stdout).toMatch(
    /:22 answers as SSH-2\.0-.+\. Its host key must be SHA256:\S+: where it says "host key mismatch"/,
  );
  expect(await traces("node-1")).toEqual([]);
  expect(await read("node-1", instancesFile)).toBe(instances.before);
  expect(await cluster().kubectl("get", "daemonset", "-A", "-o", "name")).toBe("");
});

test("a join command that fails says so, and the secret that it prints stays on the host", async () => {
  await configure({ payloads: ["first"], join: `set -x; : ${token.secret}; exit 7` });
  const { code, stdout } = await withoutSecrets(project.up("--show-full-output"));
  expect(code).not.toBe(0);
  expect(stdout).toContain("the join command failed with exit status 7");
  expect(await read("node-2", "/var/log/contrast-runtime/join.log")).toContain(token.secret);
});

test("hosts are made ready, the stranger joins with its token, and both serve the runtime", async () => {
  await configure({ payloads: ["first"], join: joinCommand() });
  const { code, stdout } = await withoutSecrets(project.up("--show-full-output"));
  expect(code, stdout).toBe(0);
  for (const { name } of nodes) {
    expect(stdout).toContain(`${name}: ready: Serves ${handlerOf("first")}`);
    expect(await read(name, instancesFile)).toBe(instances.after);
    expect(await read(name, "/etc/sysctl.d/98-contrast-runtime.conf")).toContain(`= ${instances.after}`);
    const limit = await cluster().onNode(name, "systemctl", "show", "containerd", "--property=LimitMEMLOCK", "--value");
    expect(limit.trim()).toBe("infinity");
  }
  expect(await read("node-2", "/etc/kubernetes/kubelet.conf")).not.toContain(token.secret);
  expect(await project.exported()).not.toContain(token.secret);
});

test("pods of the class run on both", async () => {
  const pods = nodes.map(({ name }) =>
    busyboxPod(cluster(), `pod-${name}`, { nodeName: name, runtimeClassName: handlerOf("first") }),
  );
  await cluster().apply(...pods);
  await cluster().kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s");
  await cluster().kubectl("delete", "pod", "--all");
});

test("a member is not joined again, neither by the next update nor by one with another token", async () => {
  await withoutSecrets(project.mustWork(project.preview("--expect-no-changes")));
  await configure({ payloads: ["first"], join: joinCommand("fedcba9876543210") });
  const { stdout } = await withoutSecrets(project.mustWork(project.up()));
  expect(stdout).toContain("already a member");
  expect(await read("node-2", "/etc/joins")).toBe("joined");
});

test("a host that leaves the stack stays installed, which the update says until it is uninstalled by name", async () => {
  await configure({ payloads: ["first"], hosts: ["node-1"], join: joinCommand() });
  const { code, stdout } = await withoutSecrets(project.up("--show-full-output"));
  expect(code).not.toBe(0);
  expect(stdout).toContain(`node-2: left: ${handlerOf("first")} is still installed, without an installer`);
  const [, remedy = ""] = /or run: npx contrast-runtime (.* --nodes node-2)$/m.exec(stdout) ?? [];
  const program = join(packageRoot, ".local/bin/contrast-runtime");
  const kubeconfig = join(project.home, "kubeconfig");
  await writeFile(kubeconfig, cluster().kubeconfig);
  await cluster().inNetwork("env", `KUBECONFIG=${kubeconfig}`, program, ...remedy.split(" "));
  expect(await configurationOf("node-2")).not.toContain("contrast");
  // An update that succeeds also removes the host's settings.
  expect((await traces("node-2")).filter((file) => !/98-contrast-runtime|60-contrast-runtime/.test(file))).toEqual([]);
  await configure({ payloads: ["first"], join: joinCommand() });
});

test("a machine that dies during its turn is named when the rollout gives up", async () => {
  // The other machine waits for its turn to end. A rollout's first look at the cluster takes its second ticket away.
  const { uid } = (await cluster().get<{ metadata: { uid: string } }>("node", "node-2")).metadata;
  const [ticket = "", surplus = ""] = ticketNames("metal", 2);
  const heldByNode2 = (name: string) => ({
    apiVersion: "coordination.k8s.io/v1",
    kind: "Lease",
    metadata: {
      name,
      namespace: systemNamespace,
      ownerReferences: [{ apiVersion: "v1", kind: "Node", name: "node-2", uid }],
    },
    spec: { holderIdentity: "node-2" },
  });
  await cluster().apply(heldByNode2(ticket), heldByNode2(surplus));
  await configure({ payloads: ["second"], join: joinCommand(), group: { stallTimeout: 60 } });
  // Its kubelet hangs first, so that it cannot finish before it dies. However long the update takes to begin the rollout,
  // which would ignore a node that was NotReady before: until then the node has its heartbeat from here.
  await cluster().onNode("node-2", "systemctl", "kill", "--signal=STOP", "kubelet");
  let ended = false;
  const update = project.up().finally(() => {
    ended = true;
  });
  const firstLook = async () => {
    await renewNodeLease("node-2");
    const found = await cluster().kubectl("get", "lease", surplus, "-n", systemNamespace, "--ignore-not-found");
    return ended || found === "" || undefined;
  };
  await until("the rollout looks at the cluster", firstLook, 600_000);
  await stopUnit(layout, nodeLayout(layout, { name: "node-2", number: 0 }).unit);
  const { code, stdout } = await update;
  expect(code).not.toBe(0);
  expect(stdout).toContain("Nothing has changed for 60 s.");
  expect(stdout).toMatch(/node-2: (starting|not-ready): /);
  expect(stdout).toMatch(/node-1: waiting: .*node-2/);
});

test("with its name under ignoreNodes the next update succeeds on the others", async () => {
  await configure({ payloads: ["second"], join: joinCommand(), group: { ignoreNodes: ["node-2"] } });
  const { code, stdout } = await project.up();
  expect(code, stdout).toBe(0);
  expect(stdout).toContain("node-2: skipped");
  expect(stdout).toContain(`node-1: ready: Serves ${handlerOf("second")}`);
  await project.mustWork(project.preview("--expect-no-changes"));
});

test("destroy uninstalls on the living host, byte for byte, and does not wait for the dead one", async () => {
  const { code, stdout } = await project.destroy();
  expect(code, stdout).toBe(0);
  expect(await configurationOf("node-1")).toBe(original);
  expect(await traces("node-1")).toEqual([]);
  const limit = await cluster().onNode(
    "node-1",
    "systemctl",
    "show",
    "containerd",
    "--property=LimitMEMLOCK",
    "--value",
  );
  expect(limit.trim()).not.toBe("infinity");
});

test("a host that is dead before the first update is skipped, and a stack with onDestroy: leave leaves its hosts as they are", async () => {
  const group = { onDestroy: "leave", ignoreNodes: ["node-2"] };
  await configure({ payloads: ["third"], user: "root", join: joinCommand(), group });
  const { stdout } = await project.mustWork(project.preview());
  expect(stdout).toContain("Host node-2 is skipped: it is named in ignoreNodes.");
  await project.mustWork(project.up());
  await project.mustWork(project.preview("--expect-no-changes"));
  // If it had died a moment later, it would have its installer's pod, which no kubelet ever ends.
  const labels = { "app.kubernetes.io/name": installerName("metal") };
  const container = { name: "installer", image };
  await cluster().apply({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "of-the-dead-node", namespace: systemNamespace, labels },
    spec: { nodeName: "node-2", containers: [container] },
  });
  const installed = await configurationOf("node-1");
  expect(installed).toContain(handlerOf("third"));
  const files = await traces("node-1");
  expect(files).toContain("/etc/sysctl.d/98-contrast-runtime.conf");
  await project.mustWork(project.destroy());
  expect(await configurationOf("node-1")).toBe(installed);
  expect(await traces("node-1")).toEqual(files);
});

/** The heartbeat of a kubelet: the node stays Ready as long as this comes. */
async function renewNodeLease(node: string): Promise<void> {
  // The API's MicroTime wants six digits.
  const spec = { renewTime: new Date().toISOString().replace("Z", "000Z") };
  const lease = ["lease", node, "--namespace=kube-node-lease"];
  await cluster().kubectl("patch", ...lease, "--type=merge", "--patch", JSON.stringify({ spec }));
}
