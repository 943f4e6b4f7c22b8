import { expect, test } from "vitest";
import { fixtureHandler } from "../../runtime/fixtures.ts";
import { type Case, expectMistakes, manifest, mistakesIn, snp, withGroup, withGroups } from "./stacks.ts";

const runtimes = (...list: object[]) => withGroup({ runtimes: list });
const payload = "groups.workers.runtimes[0].payload";
const applying = "kata-4.3.0-annotation-allowlist, GHSA-fmg6-v47x-52wr, GHSA-mp2j-xm59-qfgw, GHSA-h8jv-63p2-496x.";

const cases: Case[] = [
  [
    "a manifest that is not there",
    runtimes({ ...snp, payload: "nowhere.json" }),
    {
      [payload]:
        "\"nowhere.json\" cannot be read: ENOENT: no such file or directory, open 'nowhere.json'. Write the manifest with npx contrast-runtime lock; the path begins at the project's directory.",
    },
  ],
  [
    "a file that is not JSON",
    runtimes({ ...snp, payload: "README.md" }),
    {
      [payload]:
        '"README.md" is not JSON: Unexpected token \'#\', "# x" is not valid JSON. Write it with npx contrast-runtime lock.',
    },
  ],
  [
    "a file that is not a manifest",
    runtimes({ ...snp, payload: "package.json" }),
    {
      [payload]:
        '"package.json" is not a manifest: schemaVersion is missing. Allowed: 1. Write it with npx contrast-runtime lock.',
    },
  ],
  [
    "a Kata that is too old for the platform",
    runtimes({ ...snp, payload: manifest("contrast-aks") }),
    {
      [payload]:
        '"test/fixtures/manifests/fixture-contrast-aks.json" cannot be used: Kata 3.2.0.azl2 is too old for metal-qemu-snp with flavour contrast-go: 3.30.0 or later is needed. Lock a newer payload.',
    },
  ],
  [
    "a flavour that cannot serve the platform",
    runtimes({ platform: "local", payload: manifest("kata-rs") }),
    { [payload]: "cannot be used: Flavour kata-rs cannot serve the platform local" },
  ],
  [
    "a Kata with known holes",
    runtimes({ platform: "metal-qemu-snp", payload: manifest("contrast-go-next") }),
    {
      [payload]:
        '"test/fixtures/manifests/fixture-contrast-go-next.json" holds Kata 4.0.0, which has known holes. GHSA-fmg6-v47x-52wr (CVE-2026-77176): The host mounts guest paths of its choice over certain files of a container, although a policy made with this release\'s genpolicy protects it. Policies made with the rules of 4.1.0 or later forbid it. See https://github.com/kata-containers/kata-containers/security/advisories/GHSA-fmg6-v47x-52wr. Lock a payload of Kata 4.1.0 or later and list it beside this one; while workloads still need this one, say that you know: add "acknowledgedAdvisories: [GHSA-fmg6-v47x-52wr]" to the runtime.',
    },
  ],
  [
    "acknowledgements that say nothing",
    runtimes(
      { ...snp, acknowledgedAdvisories: ["CVE-2026-77176", "CVE-2026-50540", "CVE-2026-4132", "CVE-2026-41326"] },
      { platform: "metal-qemu-snp", payload: manifest("kata-go"), acknowledgedAdvisories: ["CVE-2026-77176"] },
    ),
    {
      "groups.workers.runtimes[0].acknowledgedAdvisories[2]": `"CVE-2026-4132" is no advisory that is known here. Did you mean CVE-2026-41326? Those of Kata 3.31.0 (contrast-go) on metal-qemu-snp: ${applying}`,
      "groups.workers.runtimes[0].acknowledgedAdvisories[3]": `"CVE-2026-41326" does not apply to Kata 3.31.0 (contrast-go) on metal-qemu-snp: remove it. Those that do: ${applying}`,
      "groups.workers.runtimes[1].acknowledgedAdvisories[0]":
        '"CVE-2026-77176" does not apply to Kata 4.1.0 (kata-go) on metal-qemu-snp',
    },
  ],
  [
    "a runtime twice",
    runtimes(snp, snp),
    {
      "groups.workers.runtimes": `lists ${fixtureHandler("contrast-go")} (metal-qemu-snp, fixture-contrast-go) twice. Remove one.`,
    },
  ],
  [
    "two overheads of one runtime",
    withGroups({
      a: { nodes: { names: ["a"] }, runtimes: [{ ...snp, overhead: { memory: "1Gi" } }] },
      b: { nodes: { names: ["b"] } },
    }),
    {
      "groups.b.runtimes": `gives ${fixtureHandler("contrast-go")} a different overhead than group a. A handler has one RuntimeClass, and that has one overhead.`,
    },
  ],
];

test.each(cases)("a payload that cannot be used: %s", async (_what, entries, says) => {
  await expectMistakes(entries, says);
});

test("several groups may have one runtime", async () => {
  expect(await mistakesIn(withGroups({ a: { nodes: { names: ["a"] } }, b: { nodes: { names: ["b"] } } }))).toEqual([]);
});

test("mistakes come in the order of the list, whichever file is read first", async () => {
  const second = Promise.withResolvers<void>();
  const readText = async (path: string) => {
    if (path === "first.json") await second.promise;
    else second.resolve();
    return "no JSON";
  };
  const found = await mistakesIn(runtimes({ ...snp, payload: "first.json" }, { ...snp, payload: "second.json" }), {
    readText,
  });
  expect(found.map((line) => line.split(":", 1)[0])).toEqual([payload, "groups.workers.runtimes[1].payload"]);
});
