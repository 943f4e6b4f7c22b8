import { expect, test } from "vitest";
import { changedStacks } from "../../../review/changed-stacks.ts";

const listed = ["organization/project/production", "edge"];
const files = {
  "Pulumi.production.yaml": "config:\n  groups:\n    - payload: ./payloads/a.json\n    - test/fixtures/b.json\n",
  "Pulumi.edge.yaml": "config:\n  groups: {a: {payload: payloads/a.json}}\n  note: reads index.ts\n",
  "Pulumi.laboratory.yaml": "payload: payloads/laboratory.json\n",
};
const [production, edge] = [
  { stack: listed[0], index: 0 },
  { stack: listed[1], index: 1 },
];

test.each([
  [["Pulumi.edge.yaml"], [edge]],
  [["payloads/a.json"], [production, edge]],
  // Named by a stack, so it is not one of the tests.
  [["test/fixtures/b.json"], [production]],
  // Of a stack that no pipeline runs for.
  [["Pulumi.laboratory.yaml", "payloads/laboratory.json"], []],
  [["docs/review.md", "README.md", "test/unit/a.ts"], []],
  // Whatever is not known to be something else is the program.
  [["payloads/of-nobody.json"], [production, edge]],
  [["Pulumi.yaml"], [production, edge]],
  [["index.ts"], [production, edge]],
  [["components/README.md"], [production, edge]],
  [
    ["package-lock.json", "Pulumi.edge.yaml"],
    [production, edge],
  ],
  [[], [production, edge]],
])("of a change of %j", (changed, stacks) => {
  expect(changedStacks(listed, changed, files)).toEqual(stacks);
});

test("a file that no YAML reader takes names what can be read of it", () => {
  const broken = { "Pulumi.edge.yaml": "a: payloads/a.json\nb: [\n" };
  expect(changedStacks(["edge", "production"], ["payloads/a.json"], broken)).toEqual([{ stack: "edge", index: 0 }]);
});
