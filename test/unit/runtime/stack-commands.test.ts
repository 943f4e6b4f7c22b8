import fc from "fast-check";
import { expect, test } from "vitest";
import { wordsOf } from "../../../runtime/shell.ts";
import { stackCommand, stackVerb, stackVerbs } from "../../../runtime/stack-commands.ts";

test("a command has its verb and its words back, whatever they are", () => {
  const words = fc.array(fc.string({ unit: "grapheme" }).filter((word) => !/[\0\n]/.test(word)));
  fc.assert(
    fc.property(fc.constantFrom(...stackVerbs), words, (verb, given) => {
      const text = stackCommand(verb, ...given);
      expect([stackVerb(text), wordsOf(text)?.slice(4)]).toEqual([
        verb,
        ["contrast-runtime", ...verb.split(" "), ...given],
      ]);
    }),
  );
});

test("a command of a release before, which called the bin by its name alone, is known as well", () => {
  expect(stackVerb("contrast-runtime rollout --group a")).toBe("rollout");
});

test.each([
  "contrast-runtime rollout --group a; id",
  `exec node -e 'import("contrast-runtime/cli")' contrast-runtime rollout; id`,
  `exec node -e 'import("contrast-runtime/cli"); import("elsewhere")' contrast-runtime rollout`,
  `exec node -e 'import("elsewhere")' contrast-runtime rollout`,
  `node -r /tmp/x -e 'import("contrast-runtime/cli")' contrast-runtime rollout`,
  "contrast-runtime rollout --group $(id)",
  "contrast-runtime rollout --group `id`",
  'contrast-runtime rollout --group "$HOME"',
  "contrast-runtime rollout\nid",
  "contrast-runtime rollout --group 'a\n'",
  "contrast-runtime rollout --group 'a",
  "contrast-runtime rollout --group a\\ b",
  "contrast-runtime rollout > /etc/passwd",
  "contrast-runtime rollout & id",
  "contrast-runtime rollout ~ *",
  "PATH=/tmp contrast-runtime rollout",
  "/tmp/contrast-runtime rollout",
  "contrast-runtime rollouts",
  "contrast-runtime local-cluster exec --name a --node b -- id",
  "contrast-runtime",
  "",
])("%j is none that a component writes", (text) => {
  expect(stackVerb(text)).toBeUndefined();
});
