import { lastValue } from "./command-line.ts";
import type { MeasurementInputs } from "./inputs.ts";

/** One input of a measurement: how a reader calls it, and its value as text. */
type Input = [name: string, of: (inputs: MeasurementInputs) => unknown];

const kernel: Input = ["kernel", ({ kernel }) => kernel?.sha256];
const initrd: Input = ["initrd", ({ initrd }) => initrd?.sha256];
const commandLine: Input = ["kernel command line", ({ commandLine }) => commandLine];

/** Which inputs each value depends on. */
const dependencies: Record<"snp" | "tdx", [value: string, inputs: Input[]][]> = {
  snp: [
    [
      "SNP launch digests",
      [
        ["IGVM file", ({ igvm }) => igvm?.launchDigest],
        ["firmware", ({ snp }) => snp?.firmwareDigest],
        ["firmware's SEV metadata", ({ snp }) => snp && [snp.sections, snp.hashTableGpa, snp.resetEip]],
        ["guest features", ({ snp }) => snp?.guestFeatures],
        kernel,
        initrd,
        commandLine,
      ],
    ],
  ],
  tdx: [
    ["MRTD", [["firmware", ({ tdx }) => tdx?.mrtd]]],
    ["RTMR1", [kernel]],
    ["RTMR2", [initrd, commandLine]],
  ],
};

/** Sentences for a review: which reference values change because of which input. Empty: none does. */
export function explainChanges(
  before: MeasurementInputs,
  after: MeasurementInputs,
  tee: "snp" | "tdx" | "none",
): string[] {
  if (tee === "none") return [];
  const changed = ([, of]: Input) => JSON.stringify(of(before)) !== JSON.stringify(of(after));
  return dependencies[tee].flatMap(([value, inputs]) => {
    const reasons = inputs.filter(changed).map((input) => describe(input, before, after));
    return reasons.length === 0
      ? []
      : [`${value} ${value.endsWith("s") ? "change" : "changes"} because of the ${list(reasons)}.`];
  });
}

const list = (words: string[]) =>
  words.length < 2 ? words.join() : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;

function describe([name, of]: Input, before: MeasurementInputs, after: MeasurementInputs): string {
  if (name === "kernel command line") return describeCommandLine(before.commandLine ?? "", after.commandLine ?? "");
  const [old, now] = [of(before), of(after)];
  if (old === undefined) return `${name} (new)`;
  if (now === undefined) return `${name} (removed)`;
  return typeof old === "string" && typeof now === "string"
    ? `${name} (${old.slice(0, 12)}… → ${now.slice(0, 12)}…)`
    : name;
}

/** A new rootfs image shows itself by its root hash, which is what a reviewer knows it by. */
function describeCommandLine(before: string, after: string): string {
  const root = (line: string) => lastValue(line, "roothash") ?? / verity .* sha256 ([0-9a-f]{64}) /.exec(line)?.[1];
  const [old, now] = [root(before), root(after)];
  if (old === undefined || now === undefined || old === now) return "kernel command line";
  const only = before.replaceAll(old, now) === after;
  return `${only ? "rootfs image" : "kernel command line with the rootfs image"} (root hash ${old.slice(0, 12)}… → ${now.slice(0, 12)}…)`;
}
