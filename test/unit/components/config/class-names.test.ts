import { expect, test } from "vitest";
import { fixtureHandler } from "../../runtime/fixtures.ts";
import {
  type Case,
  expectMistakes,
  manifest,
  mistakesIn,
  runtime,
  snp,
  withGroup,
  withGroups,
  withRuntime,
} from "./stacks.ts";

const goHandler = fixtureHandler("contrast-go");
const rsHandler = fixtureHandler("kata-rs");
const rs = { platform: "metal-qemu-snp", payload: manifest("kata-rs") };
const local = { platform: "local", payload: manifest("local") };

test.each<Case>([
  [
    "what no class can be called",
    withRuntime({ classNames: ["Contrast", "a", "a", goHandler] }),
    {
      [`${runtime}.classNames[0]`]: '"Contrast" must be a RuntimeClass\'s name.',
    },
  ],
  [
    "the handler's own name, and a name twice",
    withRuntime({ classNames: ["a", "a", goHandler] }),
    {
      [`${runtime}.classNames[1]`]: '"a" is listed twice.',
      [`${runtime}.classNames[2]`]: `"${goHandler}" is the handler's own name, whose RuntimeClass is there in any case.`,
    },
  ],
  [
    "a class with two handlers",
    withGroup({
      runtimes: [
        { ...snp, classNames: ["a"] },
        { ...rs, classNames: ["a", goHandler] },
      ],
    }),
    {
      "groups.workers.runtimes[1].classNames[0]": `"a" is a RuntimeClass of ${goHandler} already: a class leads to one handler. To move it there is one update: take it from that runtime and give it to this one.`,
      "groups.workers.runtimes[1].classNames[1]": `"${goHandler}" is the name of another handler of this stack, which has its own RuntimeClass.`,
    },
  ],
  [
    "a handler with other names in another group",
    withGroups({
      a: { nodes: { names: ["n1"] }, runtimes: [{ ...rs, classNames: ["x", "y"] }] },
      b: { nodes: { names: ["n2"] }, runtimes: [{ ...rs, classNames: ["y"] }] },
      c: { nodes: { names: ["n3"] }, runtimes: [{ ...rs, classNames: ["y", "x"] }] },
    }),
    {
      "groups.b.runtimes[0].classNames": `gives ${rsHandler} other names than group a. A RuntimeClass is there for the whole cluster: list the same names in both.`,
    },
  ],
  [
    "a name that promises what is not there",
    withGroup({ runtimes: [{ ...local, classNames: ["contrast-cc", "trial"] }] }),
    {
      [`${runtime}.classNames[0]`]: `"contrast-cc" promises confidential pods, which ${fixtureHandler("local", "local")} does not make.`,
    },
  ],
  [
    "two runtimes that are current for a name, and handlers' own names",
    withGroup({
      runtimes: [
        { ...snp, currentFor: ["a", "a"] },
        { ...rs, currentFor: ["a", goHandler, rsHandler] },
      ],
    }),
    {
      "groups.workers.runtimes[0].currentFor[1]": '"a" is listed twice.',
      "groups.workers.runtimes[1].currentFor[0]": `"a" is resolved to ${goHandler} already: one runtime is current for a name. To switch is one update: take it from that runtime and give it to this one.`,
      "groups.workers.runtimes[1].currentFor[1]": `"${goHandler}" is the name of another handler of this stack, which has its own RuntimeClass.`,
      "groups.workers.runtimes[1].currentFor[2]": `"${rsHandler}" is the handler's own name, whose RuntimeClass is there in any case.`,
    },
  ],
  [
    "a name that is both a class and resolved",
    withGroup({
      runtimes: [
        { ...snp, currentFor: ["b"] },
        { ...rs, classNames: ["b", "c"], currentFor: ["c"] },
      ],
    }),
    {
      "groups.workers.runtimes[0].currentFor[0]": `"b" is among the classNames of ${rsHandler} already: a name is a class of its own or resolved when pods are admitted. Keep it in one of the two lists.`,
      "groups.workers.runtimes[1].currentFor[0]": `"c" is among the classNames of ${rsHandler} already: a name is a class of its own or resolved when pods are admitted. Keep it in one of the two lists.`,
    },
  ],
  [
    "a handler that is current for other names in another group",
    withGroups({
      a: { nodes: { names: ["n1"] }, runtimes: [{ ...rs, currentFor: ["x"] }] },
      b: { nodes: { names: ["n2"] }, runtimes: [rs] },
    }),
    {
      "groups.b.runtimes[0].currentFor": `gives ${rsHandler} other names than group a. A RuntimeClass is there for the whole cluster: list the same names in both.`,
    },
  ],
  [
    "a resolved name that promises what is not there",
    withGroup({ runtimes: [{ ...local, currentFor: ["contrast-cc"] }] }),
    {
      [`${runtime}.currentFor[0]`]: `"contrast-cc" promises confidential pods, which ${fixtureHandler("local", "local")} does not make.`,
    },
  ],
])("names of classes: %s", async (_what, entries, says) => {
  await expectMistakes(entries, says);
});

test("a further name of a class is taken as it is", async () => {
  await expect(mistakesIn(withRuntime({ classNames: ["contrast-cc-metal-qemu-snp-0123abcd"] }))).resolves.toEqual([]);
});
