import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { armedPath, guardName, guardScriptPath } from "../../node-installer/host/guard.ts";
import { journalPath } from "../../node-installer/host/journal.ts";
import { restartsPath } from "../../node-installer/host/restart-budget.ts";
import { handlerLabel, installerName, systemNamespace } from "../../runtime/names.ts";
import { buildPrograms, bundle } from "../../tools/image/bundle.ts";
import { busyboxPod, until, useCluster } from "./harness.ts";
import { InstallerDaemonSet, pushInstaller } from "./installer-daemon-set.ts";
import { configPath, NodeWithInstaller } from "./installer-on-node.ts";
import { type SmallPayload, smallPayload, specOf } from "./small-payloads.ts";

/**
 * What earlier versions of the installer leave on a node is taken over by this one while a pod of the class runs: nothing is
 * done to a node where nothing is to be done, and a change that an earlier version was killed in is finished, or found undone
 * by that version's own guard, with one restart each. "Earlier" is what the first versions wrote: a journal without times of
 * change and with a boot's id, an order that names no handlers, a guard that knows another lock and counts no restarts, no
 * record of restarts, and labels that were taken before a change.
 */
const nodes = [
  { name: "node-1", containerd: "2.4" },
  { name: "node-2", containerd: "1.7" },
] as const;
const cluster = useCluster(
  "previous-release",
  nodes.map((node) => ({ ...node })),
);

let directory: string;
let one: SmallPayload;
let two: SmallPayload;
let image: string;
let programs: string[];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "previous-release-"));
  one = await smallPayload(directory, "one");
  two = await smallPayload(directory, "two");
  const { nodeInstaller } = await buildPrograms();
  const faultyInstaller = join(directory, "faulty-installer.mjs");
  await bundle([{ from: "test/cluster/faulty-installer.ts", to: faultyInstaller }]);
  programs = [nodeInstaller, faultyInstaller];
  image = await pushInstaller(cluster(), [one, two]);
});
afterAll(() => rm(directory, { recursive: true, force: true }));

interface Pod {
  status: { containerStatuses: { containerID: string; restartCount: number; state: object }[] };
}
interface Node {
  metadata: { labels: Record<string, string> };
}

describe.concurrent.each(nodes)("$name, containerd $containerd", ({ name }) => {
  const group = `group-of-${name}`;
  const pod = `ours-on-${name}`;
  let node: NodeWithInstaller;
  let installers: InstallerDaemonSet;
  let original: string | undefined;
  let container: Pod["status"]["containerStatuses"];

  const specWith = (...payloads: SmallPayload[]) =>
    specOf(
      group,
      payloads.map(({ runtime }) => runtime),
    );
  const handlersOf = (...payloads: SmallPayload[]) => payloads.map(({ runtime }) => runtime.handler).toSorted();
  const startsOf = async () =>
    (await node.run("journalctl", "--unit=containerd", "--output=cat")).split("Started ").length;
  const containerOf = async () => (await cluster().get<Pod>("pod", pod)).status.containerStatuses;
  const labelsOf = async () => {
    const { metadata } = await cluster().get<Node>("node", name);
    return handlersOf(one, two).filter((handler) => metadata.labels[handlerLabel(handler)] === "true");
  };
  const withoutInstallers = async () => {
    await cluster().kubectl("delete", "daemonset", installerName(group), "-n", systemNamespace, "--cascade=foreground");
    await until("its pods have ended", async () => {
      const words = ["pods", "-n", systemNamespace, "-l", `app.kubernetes.io/name=${installerName(group)}`];
      return (await cluster().get<{ items: object[] }>(...words)).items.length === 0;
    });
  };
  const rolledOut = async (...payloads: SmallPayload[]) => {
    await installers.apply(specWith(...payloads));
    const { code, stdout, stderr } = await installers.rollout();
    expect(code, stdout + stderr).toBe(0);
  };
  const expectServed = async (...payloads: SmallPayload[]) => {
    expect(await node.served()).toEqual(handlersOf(...payloads));
    expect(await labelsOf()).toEqual(handlersOf(...payloads));
    expect((await installers.status(name))?.state).toBe("ready");
    expect(await containerOf()).toEqual(container);
    expect(await node.exists(guardScriptPath)).toBe(false);
    const journal = (await node.read(journalPath)) ?? "";
    expect(journal).not.toMatch(/bootId|"transaction"/);
    expect(journal.split('"ctimeNs"').length).toBe(journal.split('"mtimeNs"').length);
  };

  /** The journal, and everything else that was otherwise. */
  const asEarlier = async () => {
    const journal = JSON.parse((await node.read(journalPath)) ?? "");
    for (const { files } of journal.runtimes) for (const file of files) delete file.ctimeNs;
    if (journal.transaction !== undefined) journal.transaction.bootId = "2b1f0c52-54a5-4e0c-8f6e-9d7f3f3c2a11";
    await node.write(journalPath, `${JSON.stringify(journal, null, 1)}\n`);
    await node.run("rm", "-f", restartsPath);
  };
  /** An earlier version was killed between its edit and its restart, and its guard stands by. */
  const killedAsEarlier = async () => {
    const fault = {
      point: "step restart",
      occurrence: 1,
      when: "before" as const,
      command: `systemctl stop ${guardName}.timer`,
    };
    expect((await node.faultyInstaller(specWith(one, two), { fault })).code).toBe(128);
    await asEarlier();
    await node.write(armedPath, ((await node.read(armedPath)) ?? "").replaceAll(/^added=.*\n/gm, ""));
    await node.write(guardScriptPath, await readFile(new URL("../fixtures/earlier/guard.sh", import.meta.url), "utf8"));
    await cluster().kubectl("label", "node", name, `${handlerLabel(one.runtime.handler)}-`);
  };

  beforeAll(async () => {
    node = new NodeWithInstaller(cluster(), name);
    await node.prepare(programs, [one, two]);
    original = await node.read(configPath);
    installers = new InstallerDaemonSet(cluster(), { group, image, nodeNames: [name] });
    await rolledOut(one);
    const [handler = ""] = handlersOf(one);
    const nodeSelector = { [handlerLabel(handler)]: "true" };
    await cluster().apply(
      { apiVersion: "node.k8s.io/v1", kind: "RuntimeClass", metadata: { name: handler }, handler },
      busyboxPod(cluster(), pod, { runtimeClassName: handler, nodeName: name, nodeSelector }),
    );
    await cluster().kubectl("wait", "--for=condition=Ready", `pod/${pod}`, "--timeout=120s");
    container = await containerOf();
  });

  describe("what an earlier version left", { concurrent: false }, () => {
    test("at rest: taken over without a restart and without a change of containerd's file", async () => {
      await withoutInstallers();
      await asEarlier();
      const before = [await node.read(configPath), await startsOf()];
      await rolledOut(one);
      expect([await node.read(configPath), await startsOf()]).toEqual(before);
      await expectServed(one);
      expect(await node.read(restartsPath)).toBeUndefined();
    });

    test("killed between edit and restart: finished, with one restart", async () => {
      await withoutInstallers();
      await killedAsEarlier();
      const before = await startsOf();
      await rolledOut(one, two);
      expect(await startsOf()).toBe(before + 1);
      await expectServed(one, two);
      await rolledOut(one);
      await expectServed(one);
    });

    test("killed, and its guard was quicker: undone by that with one restart, made anew with another", async () => {
      await withoutInstallers();
      const old = await node.read(configPath);
      await killedAsEarlier();
      expect(await node.read(configPath)).not.toBe(old);
      const before = await startsOf();
      await node.run("systemctl", "start", `${guardName}.service`);
      expect(await node.settled()).toBe(old);
      expect(await containerOf()).toEqual(container);
      await rolledOut(one, two);
      expect(await startsOf()).toBe(before + 2);
      await expectServed(one, two);
    });

    test("in the end nothing is left of either", async () => {
      await cluster().kubectl("delete", "pod", pod, "--timeout=60s");
      await rolledOut();
      expect(await node.read(configPath)).toBe(original);
      expect(await labelsOf()).toEqual([]);
      const ours =
        "find /etc /opt /var/lib -path /opt/test -prune -o -path /var/lib/containerd -prune -o -name '*contrast*' -not -path '*timer.d*' -print";
      expect(await node.run("sh", "-c", ours)).toBe("");
    });
  });
});
