// fuzz-bundles.ts [SECONDS, default 60]: damages good bundles until the time is up. Each is an outcome of its node; none
// may end the plan with an error, nor take longer than five seconds. Most are damaged inside their values, which keep
// their types, so that they are planned; the others as texts, of which most are none that is read.
import fc from "fast-check";
import { type Bundle, bundleSchema } from "../../node-installer/host/bundle.ts";
import { planFailed, planFleet } from "../../review/fleet-plan/plan.ts";
import { bundleOf, likeness, specOf } from "../unit/review/bundles.ts";

const seconds = Number(process.argv[2] ?? 60);
const slowest = 5_000;
const spec = specOf("00000001");
const samples = [await bundleOf({}), await bundleOf({ installed: spec }), await bundleOf({ file: "a = [1]\n" })];
const pieces = [
  "{",
  "}",
  "[",
  '"',
  ":",
  ",",
  "null",
  "-1",
  "1e999",
  "__proto__",
  "constructor",
  "..",
  "*",
  "\\n",
  "\\u0000",
  "true",
];

const edit = fc.record({
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  length: fc.nat(40),
  piece: fc.oneof(fc.constantFrom(...pieces), fc.string({ maxLength: 20 })),
  times: fc.oneof({ weight: 9, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.nat(20_000) }),
});
type Edit = { at: number; length: number; piece: string; times: number };
const edited = (text: string, edits: Edit[]): string =>
  edits.reduce((before, { at, length, piece, times }) => {
    const start = Math.floor(at * before.length);
    return before.slice(0, start) + piece.repeat(times) + before.slice(start + length);
  }, text);

const edits = fc.array(edit, { minLength: 1, maxLength: 4 });
const asText = fc.tuple(fc.constantFrom(...samples), edits).map(([{ text }, made]) => edited(text, made));

const bundles = samples.map(({ text }) => bundleSchema.parse(JSON.parse(text)));
/** Every call of a sample, and those that ask for what none of them has. */
const calls = bundles.flatMap(({ calls }) => Object.entries(calls));
const handler = spec.runtimes[0]?.handler ?? "";
const paths = [...new Set(calls.flatMap(([name]) => name.split(" ").filter((word) => word.startsWith("/"))))];
/** What stands in files that a plan reads: lines of all samples' files, and some that mean something to it. */
const lines = [
  ...new Set(
    calls.flatMap(([, answer]) =>
      typeof answer === "object" && answer !== null && "text" in answer ? answer.text.split("\n") : [],
    ),
  ),
  'imports = ["/etc/containerd/*.toml"]',
  'imports = ["/*/*/*/*/*", "config.toml"]',
  "version = 2",
  "version = 99",
  "disabled_plugins = ['io.containerd.grpc.v1.cri']",
  `[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.${handler}]`,
  `[[plugins."io.containerd.cri.v1.runtime"]]`,
  "ExecStart=/usr/bin/containerd --config",
  "KillMode=mixed",
  "iommu=pt amd_iommu=off",
  "runtimeRequestTimeout: 5m",
  "ID=talos",
];

const number = fc.oneof(fc.constantFrom(0, 1, 420, 493, 0o100644, 1e15), fc.maxSafeNat());
const digits = fc.oneof(fc.maxSafeNat().map(String), fc.constantFrom("0", "-1", "9".repeat(30)));
/** Another value of the type; what has a place of its own in a plan, by its key. */
function like(value: unknown, key = ""): fc.Arbitrary<unknown> {
  if (key === "kind") return fc.constantFrom("file", "directory", "other");
  if (key === "sha256") return fc.stringMatching(/^[0-9a-f]{64}$/);
  if (/^(?:mtimeNs|ctimeNs|ino|dev)$/.test(key)) return digits;
  if (key === "text" || key === "stdout") {
    const text = String(value);
    const byLines = fc
      .array(fc.record({ at: fc.nat(200), remove: fc.nat(3), line: fc.option(fc.constantFrom(...lines)) }), {
        minLength: 1,
        maxLength: 5,
      })
      .map((changes) =>
        changes
          .reduce((all, { at, remove, line }) => {
            const start = at % (all.length + 1);
            return [...all.slice(0, start), ...(line === null ? [] : [line]), ...all.slice(start + remove)];
          }, text.split("\n"))
          .join("\n"),
      );
    return fc.oneof(
      { weight: 3, arbitrary: byLines },
      edits.map((made) => edited(text, made)),
    );
  }
  if (typeof value === "string") return value.startsWith("/") ? fc.constantFrom(...paths) : fc.string();
  if (typeof value === "number") return number;
  if (typeof value === "boolean") return fc.boolean();
  if (value === null)
    return fc.constantFrom(...calls.filter(([name]) => name.startsWith("stat ")).map(([, one]) => one));
  if (Array.isArray(value)) {
    const names = paths.map((path) => path.split("/").at(-1) ?? "").filter((name) => name !== "");
    return fc.uniqueArray(fc.constantFrom("a.toml", "a.conf", ...names), { maxLength: 5 });
  }
  const object = value as Record<string, unknown>;
  return fc
    .constantFrom(...Object.keys(object))
    .chain((name) => like(object[name], name).map((made) => ({ ...object, [name]: made })));
}

type Change = (bundle: Bundle) => void;
const method = (name: string) => name.split(" ", 1)[0];
const ofCall = fc.constantFrom(...calls).chain(([name, answer]): fc.Arbitrary<Change> => {
  const others = calls.filter(([other]) => method(other) === method(name));
  const set = (made: unknown) => (bundle: Bundle) => {
    bundle.calls[name] = made as Bundle["calls"][string];
  };
  return fc.oneof(
    { weight: 4, arbitrary: like(answer).map(set) },
    { weight: 2, arbitrary: fc.constantFrom(...others).map(([, other]) => set(other)) },
    fc.constant((bundle: Bundle) => {
      delete bundle.calls[name];
    }),
    // The same answer for another path.
    fc.constantFrom(...paths).map((path) => (bundle: Bundle) => {
      bundle.calls[`${method(name)} ${path}`] = answer;
    }),
  );
});
const ofUsers = fc.constantFrom<Change>(
  (bundle) => {
    bundle.users[handler] = 3;
  },
  (bundle) => {
    bundle.processes[`/opt/edgeless/${handler}`] = 1;
  },
  (bundle) => {
    bundle.users = {};
  },
  (bundle) => {
    delete bundle.serving;
  },
  (bundle) => {
    bundle.serving = { handlers: {} };
  },
);
const inValues = fc
  .tuple(
    fc.constantFrom(...bundles),
    fc.array(fc.oneof({ weight: 6, arbitrary: ofCall }, ofUsers), { minLength: 1, maxLength: 6 }),
  )
  .map(([bundle, changes]) => {
    const changed = structuredClone(bundle);
    for (const change of changes) change(changed);
    return JSON.stringify(changed, null, 1);
  });
const damaged = fc.oneof({ weight: 9, arbitrary: inValues }, { weight: 1, arbitrary: asText });

const [good] = samples;
if (good === undefined) throw new Error("there is a sample");
const outcomes = new Map<string, number>();
/** Planned: the planner itself decided about the node. */
let [runs, planned, longest] = [0, 0, 0];
const property = fc.asyncProperty(damaged, async (text) => {
  runs += 1;
  const begin = performance.now();
  const plan = await planFleet(spec, [{ file: "node-1.json", text }, likeness(good, 2)]);
  const took = performance.now() - begin;
  longest = Math.max(longest, took);
  if (took > slowest) throw new Error(`took ${took.toFixed(0)} ms for ${text.length} characters`);
  for (const { outcome, code, reason, nodes } of plan.outcomes) {
    if (code === planFailed) throw new Error(reason);
    if (!nodes.includes("node-1")) continue;
    if (code !== "bundle-unreadable") planned += 1;
    const key = code === "" ? outcome : `${outcome} (${code})`;
    outcomes.set(key, (outcomes.get(key) ?? 0) + 1);
  }
  if (!plan.outcomes.some(({ outcome, nodes }) => outcome === "restart" && nodes.includes("node-2"))) {
    throw new Error("the other node has another plan");
  }
});
const result = await fc.check(property, {
  numRuns: Number.POSITIVE_INFINITY,
  interruptAfterTimeLimit: seconds * 1000,
  endOnFailure: true,
});
const wrong = result.failed && !result.interrupted;
console.log(
  `${wrong ? "FAILED" : "ok    "} ${runs} bundles, of which ${planned} (${((100 * planned) / runs).toFixed(0)} %) were planned, longest ${longest.toFixed(0)} ms:`,
);
for (const [name, times] of [...outcomes].sort(([, a], [, b]) => b - a)) console.log(`  ${times} ${name}`);
if (wrong)
  console.log(
    String(result.errorInstance),
    `(seed ${result.seed}, path ${result.counterexamplePath})`,
    result.counterexample?.[0],
  );
process.exitCode = wrong ? 1 : 0;
