import { afterEach, describe, expect, test } from "vitest";
import { converge } from "../../../../node-installer/install/converge.ts";
import { RolledBack } from "../../../../node-installer/install/rolled-back.ts";
import { MemoryNode } from "../../../fakes/memory-node.ts";
import { type NodeShape, nodeShapes } from "../../../fakes/node-shapes.ts";

/** Somebody removes a runtime of his own while we change the node: no fault of our change. */

let node: MemoryNode;
afterEach(() => node.close());

const own = (version: string): string => {
  const id = version.startsWith("1.7.") ? "io.containerd.grpc.v1.cri" : "io.containerd.cri.v1.runtime";
  return `\n[plugins."${id}".containerd.runtimes.own]\n  runtime_type = "io.containerd.runc.v2"\n`;
};
const isTemplate = ({ edited, configuration }: NodeShape) => /template|tmpl$/.test(edited) && edited !== configuration;
const templates = nodeShapes.filter(isTemplate).map((shape) => [shape.name, shape] as const);
const baseOf = (shape: NodeShape) => shape.files[shape.edited] ?? '{{ template "base" . }}\n';

/** Right after our rename. */
const meanwhile = (act: () => void) => {
  let done = false;
  node.host.onPoint = (point, when) => {
    if (done || when !== "after" || point !== `rename ${node.shape.edited}`) return;
    done = true;
    act();
  };
};

describe.each(templates)("a template: %s", (_, shape) => {
  const arrange = () => {
    node = new MemoryNode(shape);
    node.host.put(shape.edited, `${baseOf(shape)}${own(shape.version)}`);
    node.start();
    return node.spec([node.runtime("00000001")]);
  };
  const remove = () => {
    const { edited, version } = shape;
    node.host.put(edited, node.host.text(edited)?.replace(own(version), "\n") ?? "");
  };

  test("whose other runtime goes between our edit and our restart costs no rollback", async () => {
    const spec = arrange();
    meanwhile(remove);
    const { starts } = node;
    await converge(node.environment(spec));
    expect(node.served).toHaveLength(1);
    expect(Object.keys(node.runtimes)).not.toContain("own");
    expect(node.starts - starts).toBe(1);
  });

  test("whose other runtime is gone, but not loaded yet, is loaded with our change if the stack allows it", async () => {
    const spec = { ...arrange(), loadPendingChanges: true };
    node.host.time += 60_000;
    remove();
    const { starts } = node;
    await converge(node.environment(spec));
    expect(node.served).toHaveLength(1);
    expect(node.starts - starts).toBe(1);
  });

  test("whose other runtime goes while our handler breaks the CRI: the rollback is one that succeeded", async () => {
    const spec = arrange();
    node.breaks.add(spec.runtimes[0]?.handler ?? "");
    meanwhile(remove);
    await expect(converge(node.environment(spec))).rejects.toBeInstanceOf(RolledBack);
    expect(node.served).toEqual([]);
  });
});

test("another drop-in that goes between our edit and our restart costs no rollback", async () => {
  node = new MemoryNode(nodeShapes.find(({ name }) => name === "k3s, drop-in"));
  const other = node.shape.edited.replace(/[^/]*$/, "own.toml");
  node.host.put(other, `version = 3${own(node.shape.version)}`);
  node.start();
  meanwhile(() => node.host.nodes.delete(other));
  const { starts } = node;
  await converge(node.environment(node.spec([node.runtime("00000001")])));
  expect(node.served).toHaveLength(1);
  expect(node.starts - starts).toBe(1);
});

test("a runtime that is lost although another drop-in still has it is a reason to roll back", async () => {
  node = new MemoryNode(nodeShapes.find(({ name }) => name === "k3s, drop-in"));
  const { edited, version } = node.shape;
  const other = edited.replace(/[^/]*$/, "own.toml");
  node.host.put(other, `version = 3${own(version)}`);
  node.start();
  // What is loaded is what containerd prints: as if ours took the place of what was imported before.
  const merged = node.host.text(other) ?? "";
  const environment = node.environment(node.spec([node.runtime("00000001")]));
  const { daemon } = environment;
  const onDisk: typeof daemon.onDisk = async (...args) => {
    const disk = await daemon.onDisk(...args);
    const { own: _, ...handlers } = disk.runtimes?.handlers ?? {};
    return { ...disk, runtimes: disk.runtimes && { ...disk.runtimes, handlers } };
  };
  let isEdited = false;
  meanwhile(() => {
    isEdited = true;
    node.displaced.add("own");
  });
  const lossy = {
    ...environment,
    daemon: { ...daemon, onDisk: (...args: Parameters<typeof onDisk>) => (isEdited ? onDisk : daemon.onDisk)(...args) },
  };
  await expect(converge(lossy)).rejects.toBeInstanceOf(RolledBack);
  expect([node.served, node.host.text(other)]).toEqual([[], merged]);
});

test.each(nodeShapes.map((shape) => [shape.name, shape] as const))(
  "a runtime that the daemon loses by our change is still a reason to roll back: %s",
  async (_, shape) => {
    node = new MemoryNode(shape);
    // Without a file, there is none but the default.
    const others = Object.keys(node.runtimes);
    node.displaced.add(others[0] ?? "");
    await expect(converge(node.environment(node.spec([node.runtime("00000001")])))).rejects.toBeInstanceOf(RolledBack);
    expect(node.served).toEqual([]);
  },
);
