import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { converge } from "../../../../node-installer/install/converge.ts";
import { RollbackFailed, RolledBack } from "../../../../node-installer/install/rolled-back.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { nodeShapes } from "../../../fakes/node-shapes.ts";
import { guardsFilesOn, refusalOf } from "./outcomes.ts";

let node: MemoryNode;
beforeEach(() => {
  node = new MemoryNode();
});
afterEach(() => node.close());

describe("foreign writers", () => {
  const foreign = `${adminsFile}# another installer was here\n`;

  test("an edit between our reading and our rename is kept, and the change is planned anew", async () => {
    let done = false;
    node.host.onPoint = (point, when) => {
      if (done || when !== "before" || point !== `rename ${configPath}`) return;
      done = true;
      node.host.put(configPath, foreign);
    };
    await converge(node.environment(node.spec([node.runtime("00000001")])));
    expect(node.host.text(configPath)?.startsWith(foreign)).toBe(true);
    expect(node.served).toHaveLength(1);
  });

  test("an edit right after our rename is kept, and our handlers are added to it again", async () => {
    let done = false;
    node.host.onPoint = (point, when) => {
      if (done || when !== "after" || point !== `rename ${configPath}`) return;
      done = true;
      node.host.put(configPath, foreign);
    };
    // The daemon is restarted with the foreign bytes, so the gate cannot pass: the change is planned anew, not rolled back.
    await converge(node.environment(node.spec([node.runtime("00000001")])));
    expect(node.host.text(configPath)?.startsWith(foreign)).toBe(true);
    expect(node.served).toHaveLength(1);
    expect(guardsFilesOn(node)).toEqual([]);
  });

  test("an edit that keeps our block survives the rollback", async () => {
    const bad = node.runtime("0000000b");
    node.breaks.add(bad.handler);
    let done = false;
    node.host.onPoint = (point, when) => {
      if (done || when !== "after" || point !== `rename ${configPath}`) return;
      done = true;
      node.host.put(configPath, `${node.host.text(configPath)}# added by hand\n`);
    };
    await expect(converge(node.environment(node.spec([bad])))).rejects.toBeInstanceOf(RolledBack);
    expect(node.host.text(configPath)).toBe(`${adminsFile}# added by hand\n`);
    expect(node.served).toEqual([]);
  });

  test("what a program writes that had the file open while it was replaced is kept, and the change is planned anew", async () => {
    node.host.writeDuringReplacement(configPath, foreign);
    await converge(node.environment(node.spec([node.runtime("00000001")])));
    expect(node.host.text(configPath)?.startsWith(foreign)).toBe(true);
    expect(node.served).toHaveLength(1);
    expect(node.log.join("")).toContain("was written to by another program");
    expect(guardsFilesOn(node)).toEqual([]);
  });

  test("what it writes while the old bytes are restored is kept, without our block", async () => {
    const bad = node.runtime("0000000b");
    node.breaks.add(bad.handler);
    let done = false;
    node.host.onPoint = (point, when) => {
      if (done || when !== "after" || point !== `rename ${configPath}`) return;
      done = true;
      node.host.writeDuringReplacement(configPath, `${node.host.text(configPath)}# added by hand\n`);
    };
    await expect(converge(node.environment(node.spec([bad])))).rejects.toBeInstanceOf(RolledBack);
    expect(node.host.text(configPath)).toBe(`${adminsFile}# added by hand\n`);
    expect(node.served).toEqual([]);
  });

  describe("that put a file without our tables back after our restart, while our handler breaks the CRI", () => {
    const restart = "run systemctl restart containerd.service";
    const putBack = (text: string, kill: boolean) => {
      let done = false;
      node.host.onPoint = (point, when) => {
        if (done || when !== "after" || point !== restart) return;
        done = true;
        node.host.put(configPath, text);
        if (kill) node.host.kill();
      };
    };
    const broken = () => {
      const spec = node.spec([node.runtime("0000000b")]);
      node.breaks.add("contrast-cc-metal-qemu-snp-0000000b");
      return spec;
    };
    const texts = [["the exact old bytes", adminsFile] as const, ["bytes of their own", foreign] as const];

    test.each(texts)("leave a node that serves: %s", async (_, text) => {
      const spec = broken();
      putBack(text, false);
      const { starts } = node;
      await expect(converge(node.environment(spec))).rejects.toBeInstanceOf(RolledBack);
      expect(node.served).toEqual([]);
      expect(node.host.text(configPath)).toBe(text);
      expect(node.starts - starts).toBe(4);
      expect(guardsFilesOn(node)).toEqual([]);
    });

    test.each(texts)("and the installer is killed: its next run restarts containerd. %s", async (_, text) => {
      const spec = broken();
      putBack(text, true);
      await expect(converge(node.environment(spec))).rejects.toThrow("the process was killed");
      node.host.revive();
      await expect(converge(node.environment(spec))).rejects.toBeInstanceOf(RolledBack);
      expect(node.served).toEqual([]);
      expect(guardsFilesOn(node)).toEqual([]);
    });

    test.each(texts)("and the installer never runs again: the guard restarts containerd. %s", async (_, text) => {
      const spec = broken();
      putBack(text, true);
      await expect(converge(node.environment(spec))).rejects.toThrow("the process was killed");
      node.runGuard();
      expect(node.served).toEqual([]);
      expect(node.host.text(configPath)).toBe(text);
    });

    test("and it does not help: the run fails, restarts no more than the budget, and goes on once it serves", async () => {
      const spec = broken();
      putBack(foreign, true);
      await expect(converge(node.environment(spec))).rejects.toThrow("the process was killed");
      node.host.revive();
      node.breaks.add("runc");
      const { starts } = node;
      for (let run = 0; run < 10; run += 1)
        await expect(converge(node.environment(spec))).rejects.toBeInstanceOf(RollbackFailed);
      expect(node.starts - starts).toBeLessThanOrEqual(5);
      node.breaks.delete("runc");
      node.start();
      expect(await refusalOf(converge(node.environment(spec)))).toBe("restart-budget");
      expect(guardsFilesOn(node)).toEqual([]);
    });
  });

  test("a writer that never stops is reported, and its bytes stay", async () => {
    let count = 0;
    node.host.onPoint = (point, when) => {
      if (when !== "before" || point !== `rename ${configPath}`) return;
      count += 1;
      node.host.put(configPath, `${adminsFile}# ${count}\n`);
    };
    expect(await refusalOf(converge(node.environment(node.spec([node.runtime("00000001")]))))).toBe("file-contested");
    expect(node.host.text(configPath)).toBe(`${adminsFile}# ${count}\n`);
  });

  test("what somebody wrote into our drop-in stays, and is no reason to refuse a change or an uninstallation", async () => {
    const k0s = new MemoryNode(nodeShapes.find(({ name }) => name === "k0s 1.36"));
    try {
      const both = [k0s.runtime("00000001"), k0s.runtime("00000002")];
      await converge(k0s.environment(k0s.spec(both.slice(0, 1))));
      const { edited } = k0s.shape;
      const theirs =
        '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia]\nruntime_type = "io.containerd.runc.v2"\n';
      k0s.host.put(edited, `${k0s.host.text(edited)}${theirs}`);
      k0s.start();
      await converge(k0s.environment(k0s.spec(both)));
      expect(k0s.served).toHaveLength(2);
      expect(k0s.host.text(edited)).toContain(theirs);
      await converge(k0s.environment(k0s.spec([])));
      expect(k0s.served).toEqual([]);
      expect(k0s.host.text(edited)).toContain(theirs);
    } finally {
      k0s.close();
    }
  });
});
