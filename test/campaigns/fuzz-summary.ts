// fuzz-summary.ts [SECONDS, default 60]: damages previews until the time is up. Each gives a summary or a Refusal, never another
// error, within two seconds; the comment fits, and nothing in it leaves its code span or block, or is invisible.
import fc from "fast-check";
import { canonical } from "../../review/approval/form.ts";
import { readPreview } from "../../review/preview/preview.ts";
import { renderMarkdown } from "../../review/summary/markdown.ts";
import { summarize } from "../../review/summary/summary.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { document } from "../unit/review/documents.ts";
import { exampleSteps } from "../unit/review/examples.ts";

const [seconds = "60"] = process.argv.slice(2);
const slowest = 2_000;
const samples = ["dev", "metal-qemu-snp", "aks-new-pool"].map((name) => {
  const steps = exampleSteps(name);
  const [updates, creations] = [steps.map((step) => ({ ...step, op: "update", before: {} })), steps];
  return [document(creations), document(updates)] as const;
});

/** What somebody would write who wants the comment to say something else. */
const hostile = fc.oneof(
  fc.constantFrom(
    ...[
      "`",
      "```",
      "\n```\n# HOSTILE",
      "](https://HOSTILE)",
      "<script>HOSTILE</script>",
      "\u202eHOSTILE",
      "\u0000",
      "|",
    ],
    ...[
      "@HOSTILE",
      "\u001b[2K",
      "__proto__",
      "constructor",
      "</details>",
      "[secret]",
      "",
      "a".repeat(70_000),
      "\ud800",
    ],
    ...["04da6b54-80e4-46f7-96ec-b56ff0331ba9", "- *known* — HOSTILE", "urn:pulumi:a::b::c::d", "\r\n## HOSTILE"],
  ),
  fc.string({ unit: "binary" }),
  fc.constantFrom<unknown>(null, true, -1, 1e308, [], {}, [null], { name: null }, [[[[]]]]),
  fc.jsonValue(),
  fc.nat(200).map(nested),
);

function nested(depth: number): unknown {
  let value: unknown = "deep";
  for (let at = 0; at < depth; at += 1) value = { a: value };
  return value;
}

const damage = fc.record({ where: fc.double({ min: 0, max: 1, noNaN: true }), value: hostile, isKey: fc.boolean() });
const damages = fc.array(damage, { minLength: 1, maxLength: 6 });
const cuts = fc.oneof(
  { weight: 30, arbitrary: fc.constant(null) },
  { weight: 1, arbitrary: fc.double({ min: 0, max: 1, noNaN: true }) },
);

let [runs, refused, longest] = [0, 0, 0];
const property = fc.property(fc.constantFrom(...samples.flat()), damages, cuts, (sample, all, cut) => {
  runs += 1;
  const value: unknown = JSON.parse(sample);
  for (const one of all) spoil(value, one);
  const whole = JSON.stringify(value);
  const text = cut === null ? whole : whole.slice(0, Math.floor(cut * whole.length));
  const begin = performance.now();
  try {
    const summary = summarize(readPreview(text));
    canonical(summary);
    judge(renderMarkdown(summary));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    refused += 1;
  }
  const took = performance.now() - begin;
  longest = Math.max(longest, took);
  if (took > slowest) throw new Error(`took ${took.toFixed(0)} ms`);
});
const result = fc.check(property, {
  numRuns: Number.POSITIVE_INFINITY,
  interruptAfterTimeLimit: Number(seconds) * 1000,
  endOnFailure: true,
});
const wrong = result.failed && !result.interrupted;
console.log(
  `${wrong ? "FAILED" : "ok    "} summary: ${runs} previews, ${refused} refused, longest ${longest.toFixed(1)} ms`,
);
if (wrong) console.log(fc.defaultReportMessage(result)?.slice(0, 5_000));
process.exitCode = wrong ? 1 : 0;

/** Puts the value, or a key of that text, somewhere into the tree. */
function spoil(value: unknown, { where, value: put, isKey }: { where: number; value: unknown; isKey: boolean }): void {
  const places: [Record<string, unknown>, string][] = [];
  const waiting = [value];
  for (let node = waiting.pop(); node !== undefined && places.length < 20_000; node = waiting.pop()) {
    if (typeof node !== "object" || node === null) continue;
    for (const key of Object.keys(node)) {
      places.push([node as Record<string, unknown>, key]);
      waiting.push((node as Record<string, unknown>)[key] ?? null);
    }
  }
  const [tree, key] = places[Math.floor(where * (places.length - 1))] ?? [];
  if (tree === undefined || key === undefined) return;
  if (!isKey || Array.isArray(tree)) tree[key] = put;
  else
    Object.defineProperty(tree, String(put), {
      value: tree[key],
      enumerable: true,
      configurable: true,
      writable: true,
    });
}

/** What is left without code blocks and spans may only be words of this product. */
function judge(markdown: string): void {
  if (markdown.length > 65_536) throw new Error(`${markdown.length} characters`);
  if (/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(markdown.replaceAll("\n", "")))
    throw new Error("an invisible character");
  const outside: string[] = [];
  let fence = "";
  for (const line of markdown.split("\n")) {
    const [, mark = ""] = /^ {0,2}(`{3,})[a-z]*$/.exec(line) ?? [];
    if (fence !== "") fence = mark !== "" && mark.length >= fence.length ? "" : fence;
    else if (mark !== "") fence = mark;
    else outside.push(line.replaceAll(/`[^`]*`/g, ""));
  }
  if (fence !== "") throw new Error("a code block that does not end");
  const text = outside.join("\n");
  if (/`|HOSTILE|<(?!!-- contrast|\/?details|\/?summary)|\]\(/.test(text))
    throw new Error(`outside of code: ${text.slice(0, 3_000)}`);
}
