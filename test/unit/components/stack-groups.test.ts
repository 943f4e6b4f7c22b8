import { expect, test } from "vitest";
import type { GroupConfiguration } from "../../../components/config/read.ts";
import { groupSchema } from "../../../components/config/schema.ts";
import { nodeGroup } from "../../../components/stack-groups.ts";

const group = (changes: object): GroupConfiguration => ({
  ...groupSchema.parse({ distribution: { name: "containerd" }, runtimes: [], ...changes }),
  name: "workers",
  runtimes: [],
});

test("a rollout waits for each node of a local cluster, so that one that is added runs it again", () => {
  const minimum = (changes: object, ...names: string[]) => {
    const nodes = names.map((name) => ({ name, containerd: "2.4" as const, labels: {} }));
    return nodeGroup(group(changes), { kind: "local", nodes }).minimumNodes;
  };
  expect(minimum({}, "a", "b", "c")).toBe(3);
  expect(minimum({}, "a")).toBe(1);
  expect(minimum({ minimumNodes: 5 }, "a")).toBe(5);
  // Those that a group names or selects are its own business.
  expect(minimum({ nodes: { names: ["a"] } }, "a", "b")).toBe(1);
});
