import { afterEach, beforeEach, expect, test } from "vitest";
import { converge } from "../../../../node-installer/install/converge.ts";
import { withoutKubernetes } from "../../../../node-installer/kubernetes/connect.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { plainShape } from "../../../fakes/node-shapes.ts";
import { refusedConfigurations } from "../../../fakes/refused-configurations.ts";
import { backupsOn, guardsFilesOn, messageOf, refusalOf } from "./outcomes.ts";

// The node's own containerd reads the new configuration before its file gets it, and here refuses it.

let node: MemoryNode;
beforeEach(() => {
  node = new MemoryNode();
});
afterEach(() => node.close());

/** Installs, and proves that nothing was changed for containerd and that no turn was taken. */
async function refused(file: string): Promise<{ code: string; message: string }> {
  const cluster = withoutKubernetes(() => node.host.now());
  let turns = 0;
  cluster.tickets.acquire = async () => {
    turns += 1;
    return { held: true };
  };
  const installing = converge(node.environment(node.spec([node.runtime("00000001")]), cluster));
  const code = await refusalOf(installing);
  expect(node.host.text(configPath)).toBe(file);
  expect([node.starts, turns, backupsOn(node), guardsFilesOn(node)]).toEqual([1, 0, [], []]);
  expect(Object.keys(node.host.tree()).filter((path) => /candidate|staged/.test(path))).toEqual([]);
  const { message } = (await installing.catch((error: unknown) => error)) as Error;
  return { code, message };
}

test.each(Object.entries(refusedConfigurations))("a file with %s, edited since containerd read it", async (_, text) => {
  node.host.put(configPath, text);
  const { code, message } = await refused(text);
  expect(code).toMatch(/^(configuration|imports)-/);
  expect(message).toContain(configPath);
});

test("a file that containerd does not load any more is refused in its words", async () => {
  const text = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.a]\nruntime_type = 3\n';
  node.host.put(configPath, text);
  const { message } = await refused(text);
  expect(message).toMatch(
    /does not load \/etc\/containerd\/config\.toml as it is now: containerd: .*runtime_type\. Correct/,
  );
});

test("our own tables, which this containerd refuses, with its words about the file and not about the candidate", async () => {
  node.refuses = (text) => (text.includes("pod_annotations") ? "(7, 3): unknown key pod_annotations" : undefined);
  const { code, message } = await refused(adminsFile);
  expect(code).toBe("validation-failed");
  expect(message).toBe(
    `The new configuration of containerd was not put into ${configPath}: containerd 2.1.4 does not load it: ` +
      `containerd: ${configPath}: (7, 3): unknown key pod_annotations. Correct this on the node, then run again.`,
  );
});

test("a daemon that fails on its file is not touched", async () => {
  const [[, text] = ["", ""]] = Object.entries(refusedConfigurations).filter(([name]) => name.includes("type"));
  node.host.put(configPath, text);
  node.start();
  expect(await refusalOf(converge(node.environment(node.spec([node.runtime("00000001")]))))).toBe("cri-broken-before");
  expect([node.host.text(configPath), node.starts]).toEqual([text, 2]);
});

test("a drop-in that came later and hides our tables from containerd 1.7 is named, and costs no restart", async () => {
  node.close();
  const cri = 'plugins."io.containerd.grpc.v1.cri".containerd.runtimes';
  const imports = 'imports = ["/etc/containerd/conf.d/*.toml"]';
  const text = `version = 2\n${imports}\n[${cri}.runc]\n  runtime_type = "io.containerd.runc.v2"\n`;
  node = new MemoryNode(plainShape("1.7 with imports", text, { version: "1.7.24" }));
  const spec = node.spec([node.runtime("00000001")]);
  await converge(node.environment(spec));
  const dropIn = "/etc/containerd/conf.d/nvidia.toml";
  node.host.put(dropIn, `version = 2\n[${cri}.nvidia]\n  runtime_type = "io.containerd.runc.v2"\n`);
  node.start();
  const { starts } = node;
  expect(await messageOf(converge(node.environment(spec)))).toMatch(
    new RegExp(
      `the import ${dropIn} has a table .* which in containerd 1\\.7\\.24 replaces the one of ${configPath}: move`,
    ),
  );
  expect(node.starts).toBe(starts);
  // Once it is gone, nothing of this counts as a change that failed.
  await node.host.remove(dropIn);
  node.start();
  expect(await converge(node.environment(spec))).toMatchObject({ handlers: [spec.runtimes[0]?.handler] });
});
