// policy-shapes.ts KATA: compares the requests that the tests of policies make (test/engine/pod-policy/kata-requests.ts) with
// those of Kata's own tests of policies, which its developers recorded: the fields, by kind of request. KATA is a directory
// with Kata's sources. What is on one side only is printed; expected are fields of other Kata versions, and such as Kata's
// tests leave out because their rules do not look at them.
import { readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Json, KataRequest } from "../engine/pod-policy/captured.ts";
import { examples } from "../engine/pod-policy/examples.ts";
import { requestsOf } from "../engine/pod-policy/kata-requests.ts";

const [kata] = process.argv.slice(2);
if (kata === undefined) throw new Error("The directory of Kata's sources is missing.");

/** Members whose names are data. */
const maps = ["Annotations", "Sysctl"];

function fieldsOf(value: Json, path: string, found: Set<string>): void {
  if (Array.isArray(value)) for (const one of value) fieldsOf(one, `${path}[]`, found);
  else if (typeof value === "object" && value !== null)
    for (const [key, one] of Object.entries(value)) {
      found.add(`${path}.${key}`);
      if (!maps.includes(key)) fieldsOf(one, `${path}.${key}`, found);
    }
}

function byKind(requests: KataRequest[]): Map<string, Set<string>> {
  const kinds = new Map<string, Set<string>>();
  for (const { kind, input } of requests) {
    const found = kinds.get(kind) ?? new Set();
    kinds.set(kind, found);
    fieldsOf(input, "", found);
  }
  return kinds;
}

const testdata = join(kata, "src/tools/genpolicy/tests/policy/testdata");
const files = (await readdir(testdata, { recursive: true })).filter((name) => name.endsWith("testcases.json"));
const logged: KataRequest[] = files.flatMap((file) => {
  const cases: { kind: string; request: KataRequest["input"] }[] = JSON.parse(
    readFileSync(join(testdata, file), "utf8"),
  );
  return cases.map(({ kind, request }) => ({ kind, input: request }));
});
const { web, db } = examples("kata-go");
const ours = byKind([web, db].flatMap(({ captured }) => requestsOf(captured, "kata-go")));
const theirs = byKind(logged);
for (const [kind, fields] of ours) {
  const other = theirs.get(kind);
  if (other === undefined) continue;
  const only = (a: Set<string>, b: Set<string>) => [...a].filter((field) => !b.has(field)).toSorted();
  console.log(`${kind}: ${[...fields].filter((field) => other.has(field)).length} fields on both sides`);
  console.log(`  only here: ${only(fields, other).join(" ") || "-"}`);
  console.log(`  only there: ${only(other, fields).join(" ") || "-"}`);
}
