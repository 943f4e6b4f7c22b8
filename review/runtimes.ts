import { z } from "zod";
import { explainChanges, type Measured } from "../measure/reference-value-changes.ts";
import { platforms } from "../runtime/platforms.ts";
import type { InstallSpec, PlatformName, RuntimeSpec } from "../runtime/spec.ts";
import { type GroupChange, isHandedOver, leavesNodes, type RuntimeCard, runtimeOf } from "./groups.ts";
import { leafChanges } from "./leaves.ts";
import { claim, code, exchange, known, type Line, list, predicted, quoted, type Told, unknown } from "./lines.ts";
import type { Inputs, Preview } from "./preview.ts";

/** Handlers and payloads that a group gets, exchanges or loses. */
export function runtimeLines(changes: GroupChange[], preview: Preview): Told[] {
  const { steps } = preview;
  const lines = changes.flatMap((change) => {
    const { group, added, removed, replaced } = change;
    const isReplaced = ({ handler }: RuntimeCard) =>
      replaced.some((pair) => [pair.before.handler, pair.after.handler].includes(handler));
    return [
      ...added.filter((runtime) => !isReplaced(runtime)).map((runtime) => known(`${at(group)} gets ${name(runtime)}.`)),
      ...replaced.flatMap((pair) => replacedLines(change, pair)),
      ...removed
        .filter((runtime) => !isReplaced(runtime))
        .map((runtime) => known(`${at(group)} loses ${name(runtime)}.`)),
      ...(removed.length > 0 ? [retirement(change)] : []),
      ...(isHandedOver(change) ? [handOver(group)] : []),
      ...renamedPayloads(change),
    ];
  });
  const classes = steps.flatMap((step): Told[] => {
    const { type, op, name, before, after } = step;
    if (type !== "kubernetes:node.k8s.io/v1:RuntimeClass" || !before || !after) return [];
    const others = leafChanges({ ...before, overhead: undefined }, { ...after, overhead: undefined }).map(
      ({ path, before: from, after: to }) =>
        claim(known(`RuntimeClass ${code(name)}: ${code(path)} ${exchange(from, to)}.`), step, [path]),
    );
    if (op === "replace") {
      others.push(claim(known(`RuntimeClass ${code(name)} is deleted and created again.`), step, ["(replace)"]));
    }
    const [old, now] = [overhead(before), overhead(after)];
    if (old === now) return others;
    return [
      ...others,
      claim(known(`RuntimeClass ${code(name)}: overhead ${exchange(old, now)}.`), step, ["overhead.podFixed"]),
      predicted(`Pods of ${code(name)} that start from then on are charged the new overhead; running ones are not.`),
    ];
  });
  return [...lines, ...kataLines(changes, preview), ...classes];
}

/** Which Kata new runtimes hold, and which of its known holes the stack puts up with, in those that stay as well. */
function kataLines(changes: GroupChange[], { steps, known: inputs }: Preview): Line[] {
  if (steps.length === 0) return [];
  const goes = (urn: string) => steps.some((step) => step.urn === urn && step.after === undefined);
  const components = [...inputs].filter(
    ([urn]) => urn.includes("contrast-runtime:index:ContrastRuntime::") && !goes(urn),
  );
  const all = components.flatMap(([, its]) => cards.safeParse(its).data?.runtimes ?? []);
  const added = new Set(changes.flatMap((change) => change.added.map(({ handler }) => handler)));
  return all.flatMap(({ handler, kata, kataVersion, acknowledged, closed }) => {
    const isNew = added.has(handler);
    const holes = acknowledged.map((hole) =>
      known(
        `${code(handler)} ${isNew ? "has" : "still has"} a known hole that the stack acknowledges: ${quoted(hole)}`,
      ),
    );
    if (!isNew || kata === undefined || kataVersion === undefined || kataVersion === "none") return holes;
    return [
      known(`${code(handler)} holds Kata ${code(kataVersion)} (${code(kata)}).`),
      ...holes,
      ...(closed.length > 0
        ? [
            known(
              `Of the known holes of its Kata, ${code(handler)} leaves no way to use these: ${closed.map(quoted).join(" ")}`,
            ),
          ]
        : []),
    ];
  });
}

const at = (group: string) => `Group ${code(group)}`;
const name = ({ handler, platform, payload }: RuntimeCard) =>
  `${code(handler)} (platform ${code(platform)}, payload ${code(payload)})`;

function replacedLines({ group, specBefore, specAfter }: GroupChange, pair: GroupChange["replaced"][number]): Line[] {
  const [old, now] = [runtimeOf(specBefore, pair.before.handler), runtimeOf(specAfter, pair.after.handler)];
  const differences = old && now ? differencesOf(old, now) : undefined;
  const payloads = pair.before.payload === pair.after.payload ? "" : `, payload ${code(pair.after.payload)}`;
  return [
    known(
      `${at(group)} exchanges ${name(pair.before)} for ${code(pair.after.handler)}${payloads}` +
        `${differences ? `. What differs: ${list(differences)}` : ""}.`,
    ),
    predicted(
      `Pods say ${code(pair.before.handler)} until they are changed: the new handler takes none of them over. ` +
        "Adding a runtime, moving the workloads and removing the old one are three changes that can each be reviewed.",
    ),
  ];
}

/** What of two runtimes differs, as a reader calls it. */
function differencesOf(old: RuntimeSpec, now: RuntimeSpec): string[] {
  const roles = rolesThatDiffer(old, now);
  const rest = [
    ["the Kata configuration", withoutHandler(old, old.kataConfig) !== withoutHandler(now, now.kataConfig)],
    ["containerd's entry", withoutHandler(old, old.containerd) !== withoutHandler(now, now.containerd)],
  ] as const;
  return [...roles.map((role) => `the ${role}`), ...rest.flatMap(([text, differs]) => (differs ? [text] : []))];
}

function rolesThatDiffer(old: RuntimeSpec, now: RuntimeSpec): string[] {
  const digests = ({ files }: RuntimeSpec, role: string) =>
    JSON.stringify(files.filter((file) => file.role === role).map(({ path, sha256, mode }) => [path, sha256, mode]));
  const roles = [...new Set([...old.files, ...now.files].map(({ role }) => role))].sort();
  return roles.filter((role) => digests(old, role) !== digests(now, role));
}

const withoutHandler = ({ handler }: RuntimeSpec, value: unknown) => JSON.stringify(value).replaceAll(handler, "");

function retirement({ group, before, after }: GroupChange): Line {
  if (before && after === undefined && leavesNodes(before)) {
    const why = before.manifestsOnly
      ? "removed manifests uninstall nothing. Let its nodes finish an empty list of runtimes first"
      : "onDestroy is leave";
    return predicted(`${at(group)} leaves the stack and what is on its nodes stays there: ${why}.`);
  }
  return predicted(
    `On each node of ${code(group)} whatever is no longer listed takes no new pods (its label is removed first) and is uninstalled ` +
      `when no pod uses it. ${after?.manifestsOnly ? "Nothing waits for that" : "While pods do, the update fails and names them"}.`,
  );
}

const handOver = (group: string): Line =>
  predicted(
    `The update uninstalls what is on the nodes of ${code(group)}, as it is the last one that waits for them; whatever applies the ` +
      "manifests installs it again. While pods use it, the update fails and names them.",
  );

function renamedPayloads({ group, before, after }: GroupChange): Line[] {
  return (after?.runtimes ?? []).flatMap(({ handler, payload }) => {
    const old = before?.runtimes.find((runtime) => runtime.handler === handler);
    if (old === undefined || old.payload === payload) return [];
    return [
      known(`${at(group)}: the payload of ${code(handler)} is called ${code(payload)} now, its files are the same.`),
    ];
  });
}

const overhead = (inputs: Inputs | undefined): string =>
  JSON.stringify((inputs as { overhead?: { podFixed?: unknown } } | undefined)?.overhead?.podFixed ?? {});

export const cards = z.object({
  runtimes: z.array(
    z.object({
      handler: z.string(),
      launch: z.record(z.string(), z.string()).default({}),
      measured: z.record(z.string(), z.string()).default({}),
      kata: z.string().optional(),
      kataVersion: z.string().optional(),
      acknowledged: z.array(z.string()).default([]),
      closed: z.array(z.string()).default([]),
    }),
  ),
});

/** What verifiers have to be told, and why. */
export function attestationLines(changes: GroupChange[], { steps }: Preview): Line[] {
  const own = steps.filter(({ type }) => type === "contrast-runtime:index:ContrastRuntime");
  const read = (inputs: Inputs | undefined) => cards.safeParse(inputs).data?.runtimes ?? [];
  const [before, after] = [own.flatMap((step) => read(step.before)), own.flatMap((step) => read(step.after))];
  const cardOf = (of: typeof before, handler: string | undefined) =>
    of.find((card) => card.handler === handler) ?? { launch: {}, measured: {} };
  const seen = new Set<string>();
  const lines = changes.flatMap(({ added, replaced, specBefore, specAfter }) =>
    added.flatMap(({ handler, platform }) => {
      // What another group has already, verifiers know already.
      if (seen.has(handler) || before.some((card) => card.handler === handler) || platform === "local") return [];
      seen.add(handler);
      const old = replaced.find((pair) => pair.after.handler === handler)?.before.handler;
      const [cardBefore, cardAfter] = [cardOf(before, old), cardOf(after, handler)];
      const launchBefore: Record<string, string> = cardBefore.launch;
      if (Object.keys(cardAfter.launch).length === 0) {
        return [
          unknown(
            `What a verifier will see of ${code(handler)}: its manifest says nothing of measurements. The lock command writes them.`,
          ),
        ];
      }
      const values = Object.entries(cardAfter.launch).filter(([value, digest]) => launchBefore[value] !== digest);
      // Also of values that cannot be predicted it is known that they change.
      const told = Object.keys(launchBefore).length > 0;
      const reasons = told ? reasonsOf(platform, cardBefore.measured, cardAfter.measured) : [];
      const odd = old === undefined ? [] : unmeasured([specBefore, old, cardBefore], [specAfter, handler, cardAfter]);
      const doubts = odd.map((role) =>
        unknown(
          `Whether the launch values of ${code(handler)} are those of its ${role}: that is another file than in ${code(old)}, but what its manifest says was measured of it is the same.`,
        ),
      );
      if (values.length === 0 && reasons.length === 0)
        return doubts.length > 0 ? doubts : sameValues(handler, old, cardAfter.launch);
      return [
        ...doubts,
        ...values.map(([value, digest]) => valueLine(handler, value, launchBefore[value], digest)),
        ...reasons.map((reason) => known(`${code(handler)}: ${reason}`)),
        ...(told && reasons.length === 0
          ? [unknown(`Why the values of ${code(handler)} differ: nothing that its manifest says of measurements does.`)]
          : []),
        ...(old === undefined
          ? []
          : [predicted(`Verifiers that do not know these values refuse pods of ${code(handler)}.`)]),
      ];
    }),
  );
  return [...lines, ...own.flatMap((step) => correctedLines(read(step.before), read(step.after)))];
}

/** What measurements take from a file, by its role and their names. */
const takenFrom: Partial<Record<string, string[]>> = {
  firmware: ["firmware", "firmware's SEV metadata"],
  kernel: ["kernel"],
  initrd: ["initrd"],
  igvm: ["IGVM file"],
  rootfs: ["kernel command line", "IGVM file"],
};

type Side = [spec: InstallSpec | undefined, handler: string, card: { measured: Measured }];

/** Roles of files that a launch measures and that are other files, although nothing says that they measure differently. */
function unmeasured(before: Side, after: Side): string[] {
  const digestOf = ([spec, handler]: Side, role: string) =>
    runtimeOf(spec, handler)?.files.find((file) => file.role === role)?.sha256;
  return Object.entries(takenFrom).flatMap(([role, names = []]) => {
    const [old, now] = [digestOf(before, role), digestOf(after, role)];
    const isSame = names.every((name) => before[2].measured[name] === after[2].measured[name]);
    return old !== undefined && now !== undefined && old !== now && isSame ? [role] : [];
  });
}

/** Nothing that is known differs; of a value that nobody can compute it is not known. */
function sameValues(handler: string, old: string | undefined, launch: Record<string, string>): Line[] {
  const isUnknown = (value: string) => launch[value]?.startsWith("not predictable") === true;
  const names = Object.keys(launch);
  const same = names.filter((value) => !isUnknown(value));
  const open = names.filter(isUnknown);
  const of = `of ${code(handler)} as of ${code(old)}`;
  return [
    ...(open.length === 0 ? [known(`Verifiers see the same launch values ${of}.`)] : []),
    ...(open.length > 0 && same.length > 0 ? [known(`Verifiers see the same ${list(same)} ${of}.`)] : []),
    ...(open.length > 0 ? [unknown(`Whether verifiers see the same ${list(open)} ${of}: not predictable.`)] : []),
  ];
}

type LaunchCard = z.infer<typeof cards>["runtimes"][number];

/** A handler is made of files, not of what its manifest says that they measure: that may change alone. */
function correctedLines(before: LaunchCard[], after: LaunchCard[]): Line[] {
  return after.flatMap(({ handler, launch, measured }) => {
    const old = before.find((card) => card.handler === handler);
    if (old === undefined) return [];
    const changed = [...new Set([...Object.keys(old.launch), ...Object.keys(launch)])].filter(
      (value) => old.launch[value] !== launch[value],
    );
    const platform = handler.replace(/^contrast-(cc|insecure)-/, "").replace(/-[0-9a-f]+$/, "");
    const reasons = reasonsOf(platform, old.measured, measured);
    if (changed.length === 0 && reasons.length === 0) return [];
    return [
      ...changed.map((value) => valueLine(handler, value, old.launch[value], launch[value] ?? "nothing")),
      ...reasons.map((reason) => known(`${code(handler)}: ${reason}`)),
      predicted(
        `The files of ${code(handler)} stay the same, and so does what its guests measure: the values are wrong now, or were before.`,
      ),
    ];
  });
}

function valueLine(handler: string, value: string, old: string | undefined, now: string): Line {
  const line = now.startsWith("not predictable") ? unknown : known;
  const from = old === undefined || old.startsWith("not predictable") ? "" : `${code(old)} → `;
  // The card has one vCPU count of all; each has its own digest.
  const name = value.startsWith("EPYC-") ? `${value} with one vCPU` : value;
  return line(`${code(handler)}: ${name} ${from}${code(now)}.`);
}

function reasonsOf(platform: string, before: Measured, after: Measured): string[] {
  const tee = Object.hasOwn(platforms, platform) ? platforms[platform as PlatformName].tee : "none";
  return explainChanges(before, after, tee, code);
}
