import { quote } from "../../runtime/shell.ts";
import { cpuGeneration } from "./cpu-generations.ts";
import {
  type CpuFlag,
  type Device,
  type HostFacts,
  type Module,
  moduleOptionsFile,
  type Parameter,
} from "./host-facts.ts";

/**
 * What may or may not be so on a host, in two forms side by side: judged from the facts that an installer gathered on a
 * node, and as a command of POSIX shell for a host that is only reached over SSH. The functions that these commands call
 * are in components/host-check.sh; a test runs both forms on the same file trees.
 */
export interface Condition {
  holds(facts: HostFacts): boolean;
  sh: string;
}

export const not = ({ holds, sh }: Condition): Condition => ({ holds: (facts) => !holds(facts), sh: `! ${sh}` });
export const all = (...conditions: Condition[]): Condition => ({
  holds: (facts) => conditions.every(({ holds }) => holds(facts)),
  sh: `{ ${conditions.map(({ sh }) => sh).join(" && ")}; }`,
});
export const any = (...conditions: Condition[]): Condition => ({
  holds: (facts) => conditions.some(({ holds }) => holds(facts)),
  sh: `{ ${conditions.map(({ sh }) => sh).join(" || ")}; }`,
});

export const device = (name: Device): Condition => ({
  holds: ({ devices }) => devices.includes(name),
  sh: `device ${name}`,
});

/** Loaded, or built in with parameters. */
export const module = (name: Module): Condition => ({
  holds: ({ modules }) => modules.includes(name),
  sh: `module ${name}`,
});

/** Of the processor, as far as the kernel shows it: it hides what it cannot use. */
export const flag = (name: CpuFlag): Condition => ({
  holds: ({ cpu }) => cpu.flags.includes(name),
  sh: `flag ${name}`,
});

export const vendor = (name: "AuthenticAMD" | "GenuineIntel" | "ARM"): Condition => ({
  holds: ({ cpu }) => cpu.vendor === name,
  sh: `vendor ${name}`,
});

/** A model that the table of generations does not have may be a newer one. */
export const noGenerationWithout = (tee: "snp" | "tdx"): Condition => ({
  holds: ({ cpu }) => [tee, `some-${tee}`].includes(cpuGeneration(cpu)?.tee ?? tee),
  sh: `no_generation_without ${tee}`,
});

/** A generation of which only some models have it. */
export const onlySomeHave = (tee: "tdx"): Condition => ({
  holds: ({ cpu }) => cpuGeneration(cpu)?.tee === `some-${tee}`,
  sh: `only_some_have ${tee}`,
});

/** The parameter of a loaded module has a value, whichever. */
export const present = (name: Parameter): Condition => ({
  holds: ({ parameters }) => parameters[name] !== undefined,
  sh: `present ${name}`,
});

/** What the kernel writes for a parameter that is on: `Y`, or `1` in older kernels. */
export const on = (name: Parameter): Condition => ({
  holds: ({ parameters: { [name]: value } }) => value !== undefined && /^[Yy1]/.test(value),
  sh: `on ${name}`,
});

export const readsDigit = (name: Parameter): Condition => ({
  holds: ({ parameters }) => parameters[name]?.startsWith("1") === true,
  sh: `reads_digit ${name}`,
});

/** @param pattern an extended regular expression for a whole word of the kernel's command line */
export const bootedWith = (pattern: string): Condition => {
  const word = new RegExp(`^(?:${pattern})$`);
  return {
    holds: ({ kernel }) => kernel.commandLine.split(/\s+/).some((one) => word.test(one)),
    sh: `booted_with ${quote(pattern)}`,
  };
};

export const anyIommu: Condition = { holds: ({ iommu }) => iommu.devices.length > 0, sh: "any_iommu" };
export const iommuPassesThrough: Condition = {
  holds: ({ iommu }) => iommu.domain === "identity",
  sh: "iommu_passes_through",
};

/** The hardware has keys left to give to VMs of this kind, or does not say. */
export const keysFor = (name: "sev_es" | "tdx"): Condition => ({
  holds: ({ misc }) => misc[name] !== 0,
  sh: `keys_for ${name}`,
});

/** What the host's preparation asked of the modules at their next start. */
export const modulesPrepared: Condition = {
  holds: ({ modulesPrepared }) => modulesPrepared,
  sh: `exists ${quote(moduleOptionsFile)}`,
};

export const quoteService: Condition = { holds: ({ quoteService }) => quoteService, sh: "quote_service" };

export const anyGpu: Condition = { holds: ({ gpus }) => gpus.length > 0, sh: "any_gpu" };
