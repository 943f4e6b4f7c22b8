import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { journalPath } from "../../../../node-installer/host/journal.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";

let node: MemoryNode;
beforeEach(() => {
  node = new MemoryNode();
});
afterEach(() => node.close());

describe("containerd reads another file than the one that the runtimes are in", () => {
  const other = "/etc/containerd/other.toml";
  const otherText = `${adminsFile}[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.another]\n  runtime_type = "io.containerd.runc.v2"\n`;
  beforeEach(async () => {
    await converge(node.environment(node.spec([node.runtime("00000001")])));
    const unit = `[Service]\nExecStart=/usr/bin/containerd --config ${other}\nKillMode=process\n`;
    node.host.put("/etc/systemd/system/containerd.service", unit);
    node.host.put(other, otherText);
  });

  test("is refused with both names, and nothing is written", async () => {
    const before = node.host.tree();
    const again = converge(node.environment(node.spec([node.runtime("00000001")])));
    await expect(again).rejects.toThrow(`${other} now, but the runtimes were installed into ${configPath}`);
    expect(node.host.tree()).toEqual(before);
  });

  test("uninstalling, as the refusal advises, cleans the old file and leaves the other one alone", async () => {
    await converge(node.environment(node.spec([])));
    expect(node.host.text(configPath)).toBe(adminsFile);
    expect(node.host.text(other)).toBe(otherText);
    expect(node.host.text(journalPath)).toBeUndefined();
  });
});
