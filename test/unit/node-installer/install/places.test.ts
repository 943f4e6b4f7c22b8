import { afterEach, expect, test } from "vitest";
import { journalPath } from "../../../../node-installer/host/journal.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import type { InstallSpec } from "../../../../runtime/spec.ts";
import { MemoryNode } from "../../../fakes/memory-node.ts";
import { type NodeShape, nodeShapes } from "../../../fakes/node-shapes.ts";

/** k3s is upgraded, and from then on also imports drop-ins, which would be the better place for our tables. */

const shapeOf = (name: string): NodeShape => {
  const shape = nodeShapes.find((one) => one.name === name);
  if (shape === undefined) throw new Error(`no such node: ${name}`);
  return shape;
};
const upgraded = shapeOf("k3s, drop-in");

let node: MemoryNode;
let spec: InstallSpec;
let isUpgraded: boolean;
const arrange = async (before: NodeShape) => {
  isUpgraded = false;
  node = new MemoryNode({ ...before, render: (host) => (isUpgraded ? upgraded : before).render?.(host) });
  spec = node.spec([node.runtime("00000001")]);
  await converge(node.environment(spec));
  isUpgraded = true;
  node.binary = upgraded.version;
  node.start();
};
afterEach(() => node.close());

const template = upgraded.edited.replace(/\.d\/[^/]*$/, ".tmpl");
/** The same k3s with version 3, before it imported drop-ins. */
const withoutImports: NodeShape = {
  ...upgraded,
  render(host) {
    upgraded.render?.(host);
    host.put(upgraded.configuration, host.text(upgraded.configuration)?.replace(/^imports = .*\n/m, "") ?? "");
  },
};

test("a template that holds our tables stays the place also without a journal, and can be uninstalled", async () => {
  await arrange(withoutImports);
  expect(node.host.text(template)).toContain("00000001");
  node.host.nodes.delete(journalPath);
  const { starts } = node;
  await converge(node.environment(spec));
  expect(node.starts).toBe(starts);
  await converge(node.environment({ ...spec, runtimes: [] }), { refuseBlocked: true });
  expect(node.served).toEqual([]);
  expect([node.host.text(template), node.host.text(upgraded.edited)]).toEqual([undefined, undefined]);
});

test("a template that we made goes when our tables move to a drop-in", async () => {
  await arrange(shapeOf("k3s, template"));
  const old = shapeOf("k3s, template").edited;
  expect(node.host.text(old)).toContain("00000001");
  await converge(node.environment(spec));
  expect(node.host.text(upgraded.edited)).toContain("00000001");
  expect(node.host.text(old)).toBeUndefined();
  expect(node.served).toHaveLength(1);
});
