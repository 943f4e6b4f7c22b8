import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { converge } from "../../../../node-installer/install/converge.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { backupsOn, refusalOf } from "./outcomes.ts";

let node: MemoryNode;
beforeEach(() => {
  node = new MemoryNode();
});
afterEach(() => node.close());

describe("uninstall and retirement", () => {
  const uninstall = (spec: ReturnType<MemoryNode["spec"]>) =>
    converge(node.environment({ ...spec, runtimes: [] }), { refuseBlocked: true });
  const ofTheHost = () =>
    Object.fromEntries(
      Object.entries(node.host.tree()).filter(([path]) => !path.startsWith("/var/log/contrast-runtime/")),
    );

  test("leaves the host as it was, except for the log", async () => {
    const before = ofTheHost();
    const spec = node.spec([node.runtime("00000001"), node.runtime("00000002")]);
    await converge(node.environment(spec));
    await uninstall(spec);
    expect(ofTheHost()).toEqual(before);
    expect(node.served).toEqual([]);
    expect(node.host.nodes.has("/opt/edgeless")).toBe(false);
    expect(node.host.nodes.has("/var/lib/contrast-runtime")).toBe(false);
  });

  test("a sandbox that an interrupted proof left is removed, although nothing is proven any more", async () => {
    const spec = node.spec([node.runtime("00000001")]);
    await converge(node.environment(spec));
    const handler = "contrast-cc-metal-qemu-snp-00000000";
    node.sandboxes = [{ handler, name: "contrast-runtime-system/contrast-runtime-verify" }];
    await uninstall(spec);
    expect(node.sandboxes).toEqual([]);
  });

  test.each([
    ["the guard undid", "after"],
    ["a person undid", "before"],
  ] as const)(
    "so is the sandbox of a first installation that was killed and that %s, with its cgroup",
    async (_, when) => {
      const before = ofTheHost();
      const runtime = node.runtime("00000001");
      const spec = node.spec([runtime]);
      node.host.onPoint = (point, at) => {
        if (point === "run systemctl restart containerd.service" && at === when) node.host.kill();
      };
      await expect(converge(node.environment(spec))).rejects.toThrow("the process was killed");
      node.host.revive();
      if (when === "after") node.runGuard();
      else node.host.put(configPath, adminsFile);
      node.start();
      node.sandboxes = [{ handler: runtime.handler, name: "contrast-runtime-system/contrast-runtime-verify" }];
      node.host.running.push({ pid: 7, name: "shim", program: runtime.containerd.runtimePath });
      const cgroup = "/sys/fs/cgroup/contrast-runtime-verify";
      await node.host.makeDirectory(`${cgroup}/kata`, 0o755);
      node.host.onPoint = (point) => {
        if (point === "probe RemovePodSandbox") node.host.running.length = 0;
      };

      await uninstall(spec);
      expect(node.sandboxes).toEqual([]);
      expect(node.host.nodes.has(cgroup)).toBe(false);
      expect(ofTheHost()).toEqual(before);
    },
  );

  test("removes the file again if there was none", async () => {
    node.close();
    node = new MemoryNode("");
    node.host.nodes.delete(configPath);
    node.start();
    const before = ofTheHost();
    const spec = node.spec([node.runtime("00000001")]);
    await converge(node.environment(spec));
    await uninstall(spec);
    expect(ofTheHost()).toEqual(before);
  });

  test("cycle after cycle ends with the original bytes, and nothing gathers", async () => {
    const before = ofTheHost();
    for (let cycle = 0; cycle < 10; cycle += 1) {
      const spec = node.spec([node.runtime(cycle.toString(16).padStart(8, "0"))]);
      await converge(node.environment(spec));
      await uninstall(spec);
      expect(ofTheHost()).toEqual(before);
    }
  });

  test("an administrator's later edit stays", async () => {
    const spec = node.spec([node.runtime("00000001")]);
    await converge(node.environment(spec));
    node.host.put(configPath, `# mine\n${node.host.text(configPath)}`);
    node.start();
    await uninstall(spec);
    expect(node.host.text(configPath)).toBe(`# mine\n${adminsFile}`);
    expect(backupsOn(node)).toEqual([]);
  });

  test("an administrator's edit between two installations is not undone by the uninstall", async () => {
    const [first, second] = [node.runtime("00000001"), node.runtime("00000002")];
    await converge(node.environment(node.spec([first])));
    node.host.put(configPath, `# mine\n${node.host.text(configPath)}`);
    const spec = node.spec([first, second]);
    await converge(node.environment(spec));
    await uninstall(spec);
    expect(node.host.text(configPath)).toBe(`# mine\n${adminsFile}`);
  });

  test("is refused while a pod uses a handler, before anything changes", async () => {
    const runtime = node.runtime("00000001");
    await converge(node.environment(node.spec([runtime])));
    node.sandboxes.push({ handler: runtime.handler, name: "default/web" });
    const before = ofTheHost();
    await expect(uninstall(node.spec([runtime]))).rejects.toThrow(/default\/web/);
    expect(ofTheHost()).toEqual(before);
  });

  test("a runtime that the spec no longer lists is removed once no pod uses it, and served until then", async () => {
    const [old, next] = [node.runtime("00000001"), node.runtime("00000002")];
    await converge(node.environment(node.spec([old])));
    node.sandboxes.push({ handler: old.handler, name: "default/web" });
    const spec = node.spec([next]);
    const outcome = await converge(node.environment(spec));
    expect(outcome.blocked).toEqual([{ handler: old.handler, pods: ["default/web"] }]);
    expect(node.served?.toSorted()).toEqual([old.handler, next.handler]);
    node.sandboxes.length = 0;
    await converge(node.environment(spec));
    expect(node.served).toEqual([next.handler]);
    expect(Object.keys(node.host.tree()).filter((path) => path.includes(old.handler))).toEqual([]);
  });

  test("files stay as long as a process runs from them", async () => {
    const runtime = node.runtime("00000001");
    await converge(node.environment(node.spec([runtime])));
    node.host.running.push({ pid: 77, name: "shim", program: runtime.containerd.runtimePath });
    const { blocked } = await converge(node.environment(node.spec([])));
    expect(blocked).toEqual([{ handler: runtime.handler, pods: ["process shim (77)"] }]);
    expect(await node.host.stat(runtime.containerd.runtimePath)).toBeDefined();
    node.host.running.length = 0;
    await converge(node.environment(node.spec([])));
    expect(await node.host.stat("/opt/edgeless")).toBeUndefined();
  });

  test("while the CRI is down, a running shim is a user: its handler stays in containerd's file", async () => {
    const runtime = node.runtime("00000001");
    await converge(node.environment(node.spec([runtime])));
    const file = node.host.text(configPath);
    node.breaks.add(runtime.handler);
    node.start();
    node.host.running.push({ pid: 77, name: "shim", program: runtime.containerd.runtimePath });
    const gone = node.environment(node.spec([]));
    expect(await refusalOf(converge(gone, { refuseBlocked: true }))).toBe("runtime-in-use");
    expect(await refusalOf(converge(gone))).toBe("cri-broken-before");
    expect(node.host.text(configPath)).toBe(file);
    node.host.running.length = 0;
    await converge(node.environment(node.spec([])));
    expect(node.host.text(configPath)).toBe(adminsFile);
  });

  test("a process that only says so keeps no files", async () => {
    const runtime = node.runtime("00000001");
    await converge(node.environment(node.spec([runtime])));
    node.host.put("/proc/77/cmdline", `sh\0-c\0sleep ${runtime.containerd.runtimePath}`);
    node.host.link("/proc/77/exe", "/bin/sh");
    expect((await converge(node.environment(node.spec([])))).blocked).toEqual([]);
    expect(await node.host.stat("/opt/edgeless")).toBeUndefined();
  });
});
