import type { Condition } from "./conditions.ts";
import { cpuGeneration } from "./cpu-generations.ts";
import type { Finding } from "./finding.ts";
import type { HostFacts } from "./host-facts.ts";

/** A row: what is wanted of a host, and what is said of one that does not have it. */
export interface Check {
  /** Kebab-case, stable. */
  code: string;
  /** Only those without which a runtime does not work are errors. */
  severity?: "warning";
  wanted: Condition;
  /** What is wrong and why it matters. `{kernel}` and the other names of `words` stand for what the host says. */
  problem: string;
  /** The rest of the sentence: what to do. */
  remedy: string;
  /** The remedy takes effect only after a reboot, and nothing here ever reboots a host. */
  needsReboot?: boolean;
}

/** Stages: the checks of one are made only if those of the stages before it found nothing, because they would repeat it. */
export type Table = readonly (readonly Check[])[];

/** What a sentence can repeat of a host, in the same two forms as conditions. */
const words: Record<string, { of(facts: HostFacts): string; sh: string }> = {
  kernel: { of: ({ kernel }) => kernel.release, sh: "$(kernel)" },
  vendor: { of: ({ cpu }) => cpu.vendor || "unknown", sh: "$(cpu_vendor)" },
  cpu: {
    of: ({ cpu }) => cpuGeneration(cpu)?.name ?? `of vendor "${cpu.vendor || "unknown"}"`,
    sh: "$(cpu_name)",
  },
  sev_snp: { of: ({ parameters }) => parameters["kvm_amd.sev_snp"] ?? "absent", sh: "$(parameter kvm_amd.sev_snp)" },
};

/** All that is said, in pieces: at even places text, at odd ones names of `words`. */
export const sentence = ({ problem, remedy, needsReboot }: Check): string[] =>
  `${problem}: ${remedy}.${needsReboot ? " Needs a reboot." : ""}`.split(/\{(\w+)\}/);

export function findings(table: Table, facts: HostFacts): Finding[] {
  for (const stage of table) {
    const found = stage.filter(({ wanted }) => !wanted.holds(facts));
    if (found.length > 0) return found.map((check) => finding(check, facts));
  }
  return [];
}

function finding(check: Check, facts: HostFacts): Finding {
  const message = sentence(check)
    .map((piece, place) => (place % 2 === 0 ? piece : word(piece).of(facts)))
    .join("");
  const { code, severity = "error", needsReboot = false } = check;
  return { code, severity, message, needsReboot };
}

export function word(name: string): (typeof words)[string] {
  const found = words[name];
  if (found === undefined)
    throw new Error(`no sentence can repeat {${name}}: known are ${Object.keys(words).join(", ")}`);
  return found;
}
