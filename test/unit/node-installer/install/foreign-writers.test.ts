import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { converge } from "../../../../node-installer/install/converge.ts";
import { RolledBack } from "../../../../node-installer/install/undo.ts";
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
