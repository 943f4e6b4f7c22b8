import { readdirSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { renderMarkdown } from "../../../../review/summary/markdown.ts";
import type { Summary } from "../../../../review/summary/summary.ts";
import { cards } from "../../../../runtime/cards.ts";
import { summaryOf } from "../documents.ts";
import { exampleSteps } from "../examples.ts";

/* Nothing that a preview holds is passed over: neither of generated previews, nor of the examples' with one leaf changed. */

const visibleText = (summary: Summary) => renderMarkdown(summary).replace(/<details>[\s\S]*/, "");
const linesOf = ({ sections }: Summary) => sections.flatMap(({ lines }) => lines);

const rbac = "kubernetes:rbac.authorization.k8s.io/v1";
const admission = "kubernetes:admissionregistration.k8s.io/v1";

describe("whatever is in a preview", () => {
  const key = fc.constantFrom("spec", "rules", "data", "create", "metadata", "containers", "image", "a.b/c", "x");
  const tree = fc.letrec((tie) => ({
    node: fc.oneof(
      { maxDepth: 4 },
      fc.string(),
      fc.boolean(),
      fc.integer(),
      fc.array(tie("node"), { maxLength: 3 }),
      fc.dictionary(key, tie("node"), { maxKeys: 4 }),
    ),
  })).node;
  const inputs = fc.dictionary(key, tree, { maxKeys: 4 });
  const step = fc.record({
    op: fc.constantFrom("create", "update", "delete", "replace", "import", "discard", "something-new"),
    type: fc.oneof(
      fc.constantFrom(
        ...[
          "kubernetes:apps/v1:DaemonSet",
          `${rbac}:Role`,
          `${rbac}:RoleBinding`,
          `${admission}:ValidatingAdmissionPolicy`,
          "command:local:Command",
        ],
        ...[
          "command:remote:Command",
          "kubernetes:core/v1:Namespace",
          "kubernetes:core/v1:ConfigMap",
          "kubernetes:core/v1:Secret",
        ],
        ...[
          "pulumi:providers:kubernetes",
          "azure-native:containerservice:AgentPool",
          "kubernetes:node.k8s.io/v1:RuntimeClass",
        ],
        ...cards.map((card) => card.type),
      ),
      fc
        .string({ minLength: 1 })
        .filter((text) => !/[$:\s]/.test(text))
        .map((name) => `other:index:${name}`),
    ),
    before: inputs,
    after: inputs,
    paths: fc.array(fc.constantFrom("spec", "spec.template", "rules[0].verbs", "unheard"), { maxLength: 2 }),
  });

  test("each operation is covered by a line", () => {
    fc.assert(
      fc.property(step, ({ op, type, before, after, paths }) => {
        const sides = { ...(op !== "create" && { before }), ...(op !== "delete" && { after }) };
        const summary = summaryOf({ op, type, name: "the-name", paths, ...sides });
        expect(summary.operations).toHaveLength(1);
        expect(linesOf(summary).some(({ text }) => text.includes("`the-name`"))).toBe(true);
      }),
      { numRuns: 500 },
    );
  });
});

/** Every leaf of a tree, with a function that puts another value in its place. */
function leavesOf(
  value: unknown,
  put: (value: unknown) => unknown = (each) => each,
): [unknown, (value: unknown) => unknown][] {
  if (typeof value !== "object" || value === null || Object.keys(value).length === 0) return [[value, put]];
  return Object.entries(value).flatMap(([key, child]) =>
    leavesOf(child, (each) =>
      put(Array.isArray(value) ? value.map((old, at) => (String(at) === key ? each : old)) : { ...value, [key]: each }),
    ),
  );
}

describe("one leaf of an example's plan that is another", () => {
  const examples = ["dev", ...readdirSync("examples").flatMap((file) => /^Pulumi\.(.+)\.yaml$/.exec(file)?.[1] ?? [])];
  test.each(examples)("%s: as an update it is shown, as a creation the text is another", (name) => {
    const steps = exampleSteps(name);
    for (const step of steps) {
      const inputs = step.after ?? {};
      const created = visibleText(summaryOf(step));
      for (const [value, put] of leavesOf(inputs)) {
        const mutant = typeof value === "number" ? 987_654 : typeof value === "boolean" ? !value : "MUTANT";
        const after = put(mutant) as object;
        const what = `${step.type} ${step.name}: ${JSON.stringify(value)?.slice(0, 80)}`;
        const changed = visibleText(summaryOf({ ...step, op: "update", before: inputs, after }));
        const isSecret =
          step.type === "kubernetes:core/v1:Secret" ||
          (step.type.startsWith("pulumi:providers") && changed.includes("different credentials"));
        if (!isSecret)
          expect(changed, what).toContain(
            typeof mutant === "boolean" ? `${mutant}` : mutant === "MUTANT" ? "MUTANT" : "987654",
          );
        expect(changed, what).not.toContain("Nothing changes");
        if (!isSecret) expect(visibleText(summaryOf({ ...step, after })), what).not.toBe(created);
      }
    }
  });
});
