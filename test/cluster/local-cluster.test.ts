import { existsSync } from "node:fs";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { processesOf } from "../../tools/local-cluster/cgroups.ts";
import { clusterStatus, destroyCluster, ensureCluster } from "../../tools/local-cluster/cluster.ts";
import { clusterLayout, clustersDirectory, nodeLayout } from "../../tools/local-cluster/layout.ts";
import { leader } from "../../tools/local-cluster/node-machine.ts";
import { unitProcesses } from "../../tools/local-cluster/units.ts";
import { run } from "../../tools/process/run.ts";
import { busyboxPod, clusterNameFor, startCluster, type TestCluster, until } from "./harness.ts";

const name = clusterNameFor("cluster");
const layout = clusterLayout(name);
const node = (of: string, number = 2) => nodeLayout(layout, { name: of, number });

let cluster: TestCluster;
let before: Awaited<ReturnType<typeof machine>>;

beforeAll(async () => {
  await destroyCluster(name, () => {}, { force: true });
  before = await machine();
  cluster = await startCluster("cluster", [{ name: "node-1", labels: { "example.test/disk": "fast" } }]);
});
afterAll(() => destroyCluster(name, () => {}, { force: true }));

describe("a local cluster", () => {
  test("runs a pod that reaches the API server, with an image from its registry", async () => {
    await cluster.apply(
      busyboxPod(cluster, "reach", {}, "nc -w 5 10.96.0.1 443 </dev/null && echo reached; httpd -f -p 8080 -h /bin"),
    );
    await cluster.kubectl("wait", "--for=condition=Ready", "pod/reach", "--timeout=120s");
    const address = await cluster.kubectl("get", "pod", "reach", "-o", "jsonpath={.status.podIP}");
    expect(address).toMatch(new RegExp(`^${layout.podPrefix.replace(".", "\\.")}\\.2\\.`));
    expect(await cluster.kubectl("logs", "reach")).toBe("reached\n");
    // From outside the node, over the bridge into the pod's own network.
    expect(await cluster.inNetwork("sh", "-c", `ip route get ${address}`)).toContain("dev br0");
  });

  test("has nodes that are machines: systemd as process 1, containerd and kubelet as its units", async () => {
    expect(await cluster.onNode("node-1", "cat", "/proc/1/comm")).toBe("systemd\n");
    expect(await cluster.onNode("node-1", "systemctl", "is-active", "containerd", "kubelet")).toBe("active\nactive\n");
    expect(await cluster.onNode("node-1", "hostname")).toBe("node-1\n");
    const [shown] = await Promise.all([cluster.get<NodeObject>("node", "node-1")]);
    expect(shown.metadata.labels["example.test/disk"]).toBe("fast");
    expect(shown.status.nodeInfo.containerRuntimeVersion).toMatch(/^containerd:\/\/2\.4\./);
  });

  test("is not on the machine's network, and changes none of its kernel parameters but one", async () => {
    const now = await machine();
    expect(now.addresses).toEqual(before.addresses);
    expect(now.parameters).toEqual({ ...before.parameters, "fs/inotify/max_user_instances": expect.any(String) });
    expect(Number(now.parameters["fs/inotify/max_user_instances"])).toBeGreaterThanOrEqual(1024);
  });

  test("is left alone by a second ensure: same processes", async () => {
    const processes = async () => [
      await unitProcesses(layout, "apiserver"),
      await unitProcesses(layout, "etcd"),
      await leader(layout, node("node-1")),
    ];
    const running = await processes();
    await cluster.ensure();
    expect(await processes()).toEqual(running);
  });

  test("is repaired after its API server and a node's power failed, with the node's disk as it was", async () => {
    const [api = 0] = await unitProcesses(layout, "apiserver");
    const pid = (await leader(layout, node("node-1"))) ?? 0;
    await cluster.onNode("node-1", "sh", "-c", "echo '# by hand' >>/etc/containerd/config.toml");
    process.kill(api, "SIGKILL");
    process.kill(pid, "SIGKILL");
    await cluster.ensure();
    expect(await unitProcesses(layout, "apiserver")).not.toContain(api);
    expect(await leader(layout, node("node-1"))).not.toBe(pid);
    expect(await cluster.onNode("node-1", "tail", "-n1", "/etc/containerd/config.toml")).toBe("# by hand\n");
    await cluster.kubectl("wait", "--for=condition=Ready", "pod/reach", "--timeout=120s");
  });

  test("is finished although its control plane ends while ensure waits for a node", async () => {
    const pid = (await leader(layout, node("node-1"))) ?? 0;
    process.kill(pid, "SIGKILL");
    const ensuring = cluster.ensure();
    await until(
      "the node boots",
      async () => ![undefined, pid].includes(await leader(layout, node("node-1"))),
      300_000,
    );
    for (const unit of ["apiserver", "controller-manager"]) {
      for (const one of await unitProcesses(layout, unit)) process.kill(one, "SIGKILL");
    }
    await ensuring;
    await cluster.kubectl("wait", "--for=condition=Ready", "node/node-1", "--timeout=120s");
  });

  test("is repaired when a node's supervisor was killed, and after everything was, as by a reboot", async () => {
    for (const pid of await unitProcesses(layout, node("node-1").unit))
      if ((await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "")) === "systemd-nspawn\n")
        process.kill(pid, "SIGKILL");
    await cluster.ensure();
    for (const pid of await processesOf(layout.cgroup)) process.kill(pid, "SIGKILL");
    await run("umount", [layout.networkNamespace]);
    await cluster.ensure();
    expect(await clusterStatus(name)).toMatchObject({
      units: { etcd: true, registry: true, apiserver: true, "controller-manager": true, scheduler: true },
      nodes: [{ name: "node-1", running: true, ready: true }],
    });
  });

  test("restarts a node that restarts itself", async () => {
    const pid = await leader(layout, node("node-1"));
    await cluster.tryOnNode("node-1", ["systemctl", "reboot"]);
    const again = await until("the node's systemd runs again", async () => {
      const now = await leader(layout, node("node-1"));
      return now === pid ? undefined : now;
    });
    await cluster.ensure();
    expect(await leader(layout, node("node-1"))).toBe(again);
    await cluster.kubectl("wait", "--for=condition=Ready", "pod/reach", "--timeout=120s");
  });

  test("gains and loses nodes, of other containerd versions too", async () => {
    await cluster.ensure([{ name: "node-1" }, { name: "old", containerd: "1.7" }]);
    const both = await cluster.get<{ items: NodeObject[] }>("nodes");
    expect(both.items.map(({ status }) => status.nodeInfo.containerRuntimeVersion.slice(0, 16))).toEqual([
      "containerd://2.4",
      "containerd://1.7",
    ]);
    expect(both.items[0]?.metadata.labels).not.toHaveProperty("example.test/disk");
    await cluster.apply(busyboxPod(cluster, "on-old", { nodeName: "old" }));
    await cluster.kubectl("wait", "--for=condition=Ready", "pod/on-old", "--timeout=120s");
    await cluster.ensure([{ name: "old", containerd: "1.7" }]);
    expect((await cluster.get<{ items: NodeObject[] }>("nodes")).items.map(({ metadata }) => metadata.name)).toEqual([
      "old",
    ]);
    expect(existsSync(node("node-1").directory)).toBe(false);
  });

  test("refuses another installation's cluster, naming it, and changes nothing", async () => {
    const file = join(layout.directory, "cluster.json");
    const record = await readFile(file, "utf8");
    await writeFile(file, JSON.stringify({ ...JSON.parse(record), owner: "/usr/src" }));
    try {
      await expect(ensureCluster({ name }, () => {})).rejects.toThrow(/belongs to \/usr\/src/);
      await expect(destroyCluster(name, () => {})).rejects.toThrow(/belongs to \/usr\/src/);
      expect(await clusterStatus(name)).toMatchObject({ nodes: [{ name: "old", ready: true }] });
    } finally {
      await writeFile(file, record);
    }
  });

  test("leaves nothing when it is destroyed, and nothing to do for a second destroy", async () => {
    await cluster.destroy();
    expect(await remains()).toEqual([]);
    expect((await machine()).mounts).toEqual(before.mounts);
    // Other tests' clusters may still need the setting.
    const shared = await readFile(join(clustersDirectory, "host-settings.json"), "utf8").catch(() => undefined);
    if (shared) expect(shared).not.toContain(`"${name}"`);
    else expect((await machine()).parameters).toEqual(before.parameters);
    await cluster.destroy();
  });

  test("leaves nothing when ensure was killed, however far it had got", async () => {
    for (const wait of [100, 700, 1500, 3000, 5000]) {
      const ensure = run("timeout", [
        "--signal=KILL",
        String(wait / 1000),
        process.execPath,
        "tools/cli/main.ts",
        "local-cluster",
        "ensure",
        "--name",
        name,
      ]);
      expect((await ensure).code).not.toBe(0);
      await destroyCluster(name, () => {});
      expect(await remains()).toEqual([]);
    }
  });

  test("is finished by the next ensure when one was killed", async () => {
    await run("timeout", [
      "--signal=KILL",
      "2",
      process.execPath,
      "tools/cli/main.ts",
      "local-cluster",
      "ensure",
      "--name",
      name,
    ]);
    await cluster.ensure([{ name: "node-1" }]);
    expect(await clusterStatus(name)).toMatchObject({ nodes: [{ name: "node-1", ready: true }] });
    // Even if the state is lost while its processes are running.
    await rm(join(layout.directory, "cluster.json"));
    await destroyCluster(name, () => {});
    expect(await remains()).toEqual([]);
  });
});

interface NodeObject {
  metadata: { name: string; labels: Record<string, string> };
  status: { nodeInfo: { containerRuntimeVersion: string } };
}

/** Everything on the machine that contains the cluster's name. */
async function remains(): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    const groups = await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
    // A zombie has no command line any more.
    const words = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (words && (groups.includes(layout.cgroup) || words.includes(layout.directory)))
      found.push(`process ${pid}: ${words}`);
  }
  const mounts = await readFile("/proc/self/mountinfo", "utf8");
  found.push(...mounts.split("\n").filter((line) => line.includes(name)));
  for (const top of ["/sys/fs/cgroup", "/run", "/var/lib", "/etc", "/var/log"]) {
    const { stdout } = await run("find", [top, "-xdev", "-name", `*${name}*`]);
    found.push(...stdout.split("\n").filter(Boolean));
  }
  // kubectl's default cache, by the server's address.
  const { stdout: cached } = await run("find", [join(homedir(), ".kube"), "-name", `${layout.address}_*`]);
  found.push(...cached.split("\n").filter(Boolean));
  for (const { name: hierarchy } of (await readdir("/sys/fs/cgroup", { withFileTypes: true })).filter((one) =>
    one.isDirectory(),
  ))
    if (existsSync(join("/sys/fs/cgroup", hierarchy, layout.cgroup))) found.push(`control group of ${hierarchy}`);
  return found;
}

/** What a cluster might change on the machine itself. */
async function machine() {
  const parameters: Record<string, string> = {};
  for (const parameter of [
    ...[
      "fs/inotify/max_user_instances",
      "fs/inotify/max_user_watches",
      "fs/file-max",
      "fs/nr_open",
      "vm/overcommit_memory",
    ],
    ...[
      "vm/panic_on_oom",
      "vm/max_map_count",
      "kernel/panic",
      "kernel/panic_on_oops",
      "kernel/pid_max",
      "kernel/sysrq",
    ],
    ...["kernel/core_pattern", "kernel/keys/root_maxkeys", "net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter"],
  ])
    parameters[parameter] = (await readFile(`/proc/sys/${parameter}`, "utf8").catch(() => "not in this kernel")).trim();
  const { stdout: addresses } = await run("ip", ["-brief", "address"]);
  const mounts = (await readFile("/proc/self/mountinfo", "utf8"))
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .filter((directory) => !directory.startsWith(`${clustersDirectory}/`))
    .sort();
  return { parameters, addresses, mounts };
}
