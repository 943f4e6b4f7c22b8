import { explainChanges, type Measured } from "../../measure/reference-value-changes.ts";
import { type ContrastRuntimeCard, contrastRuntimeCard } from "../../runtime/cards.ts";
import { platformOf } from "../../runtime/handler.ts";
import { platforms, type Tee } from "../../runtime/platforms.ts";
import { type InstallSpec, platformNames } from "../../runtime/spec.ts";
import type { Inputs } from "../preview/inputs.ts";
import type { Preview } from "../preview/preview.ts";
import { code, list } from "../text.ts";
import type { GroupChange } from "./groups.ts";
import { known, type Line, predicted, unknown } from "./line.ts";
import { runtimeOf } from "./read-spec.ts";

/** What verifiers have to be told, and why. */
export function attestationLines(changes: GroupChange[], { steps }: Preview): Line[] {
  const own = steps.filter(({ type }) => type === contrastRuntimeCard.type);
  const read = (inputs: Inputs | undefined) => contrastRuntimeCard.schema.safeParse(inputs).data?.runtimes ?? [];
  const [before, after] = [own.flatMap((step) => read(step.before)), own.flatMap((step) => read(step.after))];
  const cardOf = (of: typeof before, handler: string | undefined) =>
    of.find((card) => card.handler === handler) ?? { launch: {}, measured: {} };
  const seen = new Set<string>();
  const lines = changes.flatMap(({ added, replaced, specBefore, specAfter }) =>
    added.flatMap(({ handler, platform }) => {
      // What another group has already, verifiers know already.
      if (seen.has(handler) || before.some((card) => card.handler === handler) || teeOf(platform) === "none") return [];
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
  const isUnknown = (value: string) => launch[value]?.startsWith(notPredictable) === true;
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

const notPredictable = "not predictable";

/** Cards of earlier versions held the values of guests with one vCPU, under names that did not say it. */
const isOfOneVcpu = (value: string) => /^EPYC-\S+ launch digest$/.test(value);

type LaunchCard = ContrastRuntimeCard["runtimes"][number];

/** A handler is made of files, not of what its manifest says that they measure: that may change alone. */
function correctedLines(before: LaunchCard[], after: LaunchCard[]): Line[] {
  return after.flatMap(({ handler, launch, measured }) => {
    const old = before.find((card) => card.handler === handler);
    if (old === undefined) return [];
    const changed = [...new Set([...Object.keys(old.launch), ...Object.keys(launch)])].filter(
      (value) => old.launch[value] !== launch[value] && !isOfOneVcpu(value),
    );
    // This card does not say the platform, and the group's, which does, need not be in the preview.
    const reasons = reasonsOf(platformOf(handler), old.measured, measured);
    if (changed.length === 0 && reasons.length === 0) return [];
    // What was not said before was not wrong.
    const contradicts = changed.some((value) => !(old.launch[value] ?? notPredictable).startsWith(notPredictable));
    return [
      ...changed.map((value) => valueLine(handler, value, old.launch[value], launch[value] ?? "nothing")),
      ...reasons.map((reason) => known(`${code(handler)}: ${reason}`)),
      ...(contradicts || reasons.length > 0
        ? [
            predicted(
              `The files of ${code(handler)} stay the same, and so does what its guests measure: the values are wrong now, or were before.`,
            ),
          ]
        : []),
    ];
  });
}

function valueLine(handler: string, value: string, old: string | undefined, now: string): Line {
  const line = now.startsWith(notPredictable) ? unknown : known;
  const from = old === undefined || old.startsWith(notPredictable) ? "" : `${code(old)} → `;
  return line(`${code(handler)}: ${value} ${from}${code(now)}.`);
}

function reasonsOf(platform: string | undefined, before: Measured, after: Measured): string[] {
  const tee = teeOf(platform);
  return tee === undefined ? [] : explainChanges(before, after, tee, code);
}

/** Undefined for a platform that this version does not know. */
function teeOf(platform: string | undefined): Tee | undefined {
  const known = platformNames.find((name) => name === platform);
  return known && platforms[known].tee;
}
