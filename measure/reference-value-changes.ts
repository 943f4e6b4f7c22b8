import { sha256 } from "../runtime/canonical.ts";
import type { MeasurementInputs } from "../runtime/measurement-inputs.ts";
import type { MeasuringTee, Tee } from "../runtime/platforms.ts";
import { lastValue, parseCommandLine } from "./kernel-command-line.ts";

/** What a launch measures, by the names that people use: digests in hex, text as it is. Part of the review card. */
export type Measured = Record<string, string>;

/** Which values depend on which inputs, and what identifies each input. */
const dependencies: Record<MeasuringTee, [values: string, inputs: [name: string, of: Reader][]][]> = {
  snp: [
    [
      "SNP launch digests",
      [
        ["IGVM file", ({ igvm }) => igvm?.launchDigest],
        ["firmware", ({ snp }) => snp?.firmwareDigest],
        ["firmware's SEV metadata", ({ snp }) => snp && digest([snp.sections, snp.hashTableGpa, snp.resetEip])],
        ["guest features", ({ snp }) => snp && `0x${snp.guestFeatures.toString(16)}`],
        ["kernel", ({ kernel }) => kernel?.sha256],
        ["initrd", ({ initrd }) => initrd?.sha256],
        ["kernel command line", ({ commandLine }) => commandLine],
      ],
    ],
  ],
  tdx: [
    ["MRTD", [["firmware", ({ tdx }) => tdx?.mrtd.singlePass]]],
    ["RTMR0", [["values that were given", ({ tdx }) => tdx?.rtmr0 && digest(tdx.rtmr0)]]],
    [
      "RTMR1",
      [
        ["kernel", ({ kernel }) => kernel?.sha256],
        ["way in which it is passed on", passedOn],
      ],
    ],
    [
      "RTMR2",
      [
        ["initrd", ({ initrd }) => initrd?.sha256],
        ["kernel command line", ({ commandLine }) => commandLine],
      ],
    ],
  ],
};
type Reader = (inputs: MeasurementInputs) => string | undefined;

function passedOn({ tdx, vmm }: MeasurementInputs): string | undefined {
  if (vmm === undefined || tdx?.bootFiles === undefined) return undefined;
  return vmm.bootFiles && tdx.bootFiles ? "as it is" : "patched by QEMU";
}

const digest = (value: unknown) => sha256(JSON.stringify(value));

/** The inputs that a TEE's values are computed from; those that the payload lacks are absent. */
export function measuredInputs(inputs: MeasurementInputs, tee: Tee): Measured {
  if (tee === "none") return {};
  const all = dependencies[tee].flatMap(([, inputsOfValue]) => inputsOfValue);
  return Object.fromEntries(
    all.flatMap(([name, of]) => {
      const value = of(inputs);
      return value === undefined ? [] : [[name, value]];
    }),
  );
}

/**
 * Sentences for a review: which reference values change because of which input, and how. Empty if none changes.
 *
 * @param quote how a value is shown, such as in a code span
 */
export function explainChanges(
  before: Measured,
  after: Measured,
  tee: Tee,
  quote = (value: string): string => value,
): string[] {
  if (tee === "none") return [];
  return dependencies[tee].flatMap(([values, inputs]) => {
    const reasons = inputs
      .filter(([name]) => before[name] !== after[name])
      .map(([name]) => describe(name, before[name], after[name], quote));
    return reasons.length === 0
      ? []
      : [`${values} ${values.endsWith("s") ? "change" : "changes"} because of the ${list(reasons)}.`];
  });
}

const list = (words: string[]) =>
  words.length < 2 ? words.join() : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;

function describe(
  name: string,
  before: string | undefined,
  after: string | undefined,
  quote: (value: string) => string,
): string {
  if (before === undefined) return `${name} (new)`;
  if (after === undefined) return `${name} (no longer known)`;
  const change = (from: string, to: string) => `${quote(from)} → ${quote(to)}`;
  if (name !== "kernel command line") return `${name} (${change(short(before), short(after))})`;
  // A new rootfs image shows up as a new root hash, which is what reviewers know it by.
  const [from, to] = [rootHash(before), rootHash(after)];
  if (from === undefined || to === undefined || from === to)
    return `${name} (${differences(parameters(before), parameters(after), change, quote)})`;
  const [old, now] = [before, after].map((line) => parameters(line).filter(({ key }) => !imageKeys.includes(key)));
  const image = `rootfs image (root hash ${change(short(from), short(to))})`;
  const rest = JSON.stringify(old) === JSON.stringify(now) ? "" : differences(old ?? [], now ?? [], change, quote);
  return rest === "" ? image : `${image} and the ${name} (${rest})`;
}

/** The parameters that say which rootfs image it is. */
const imageKeys = ["roothash", "dm-mod.create"];
const rootHash = (line: string) => lastValue(line, "roothash") ?? / verity .* sha256 ([0-9a-f]{64}) /.exec(line)?.[1];

/** The start of a digest, which is what people compare. */
const short = (value: string) => (/^[0-9a-f]{64,}$/.test(value) ? `${value.slice(0, 12)}…` : value);

/** The parameters that differ, or that only their order or spacing does. */
function differences(
  old: Parameter[],
  now: Parameter[],
  change: (from: string, to: string) => string,
  quote: (value: string) => string,
): string {
  const gone = without(old, now);
  const come = without(now, old);
  const texts = gone.map(({ key, text }) => {
    const at = come.findIndex((other) => other.key === key);
    const [successor] = at < 0 ? [] : come.splice(at, 1);
    return successor === undefined ? `without ${quote(text)}` : change(text, successor.text);
  });
  texts.push(...come.map(({ text }) => `with ${quote(text)}`));
  return texts.length === 0 ? "the order of its parameters" : texts.join(", ");
}

interface Parameter {
  key: string;
  text: string;
}

const parameters = (line: string): Parameter[] =>
  parseCommandLine(line).map(({ key, value }) => ({ key, text: value === undefined ? key : `${key}=${value}` }));

/** Each element of `taken` removes one that equals it. */
function without(from: Parameter[], taken: Parameter[]): Parameter[] {
  const left = taken.map(({ text }) => text);
  return from.filter(({ text }) => {
    const at = left.indexOf(text);
    if (at >= 0) left.splice(at, 1);
    return at < 0;
  });
}
