import * as z from "zod";
import type { FlavourName } from "./flavours.ts";
import type { KataConfiguration, Table, Value } from "./kata-configuration.ts";
import { allowedWords, effectOf, type KeyEffect, touchesRtmr0, withoutCommandLine } from "./kata-key-effects.ts";
import { boundsOf, type KeyType, keysOf, type Reader, type TableName, typeOfKey } from "./kata-keys.ts";
import { isUnread, kataReleases, newestRead } from "./kata-versions.ts";
import { type GuestProxy, parameterProblem, proxyParameters, weakeningParameters } from "./kernel-parameters.ts";
import { didYouMean } from "./nearest.ts";
import { type Platform, platforms } from "./platforms.ts";
import type { PlatformName } from "./spec.ts";

const words = "a text, a number, true, false or a list of texts";
const value = z
  .union([z.string(), z.boolean(), z.number(), z.array(z.string())], {
    error: `must be ${words}: hypervisor, agent and runtime are all the tables that there are`,
  })
  .meta({ expected: words });
const table = z.record(z.string(), value).optional();

/** Keys of Kata's configuration that a runtime sets beyond what platform and payload say. */
export const kataOverrides = z.strictObject({
  hypervisor: table.describe("Of `[hypervisor.qemu]`; `kernel_params` are added to the payload's."),
  agent: table.describe("Of `[agent.kata]`."),
  runtime: table.describe("Of `[runtime]`."),
});
export type KataOverrides = z.output<typeof kataOverrides>;

/** What a runtime's user sets beyond platform and payload. */
export interface RuntimeSettings {
  kata?: KataOverrides | undefined;
  debug?: boolean | undefined;
  guestProxy?: GuestProxy | undefined;
  acknowledgedWeakenings?: string[] | undefined;
}

/** What becomes of them, for derive.ts. */
export interface KataChanges {
  keys: Record<TableName, Table>;
  /** Added to the payload's own. */
  kernelParams: string[];
  debug: boolean;
  /** Something weakens the guest, and the user says that this is known. */
  insecure: boolean;
  /** What of the guest's kernel command line is not as without them: nothing, further parameters only, or anything. */
  commandLine: "same" | "longer" | "other";
  /** Whether guests have another RTMR0 than without them. */
  otherRtmr0: boolean;
}

export interface JudgedSettings {
  /** Absent: nothing is set. */
  changes?: KataChanges;
  /** A sentence for each, without and with the weakening ones. */
  settings: string[];
  weakened: string[];
  /** Their place below the runtime, and a sentence that begins with the value. */
  mistakes: { path: string; message: string }[];
}

interface Subject {
  platform: PlatformName;
  manifest: { flavour: string; kataVersion: string };
}

const tableNames = ["hypervisor", "agent", "runtime"] as const;

/** A key that is set, and what that does. */
interface Setting {
  table: TableName;
  key: string;
  value: Value;
  effect: KeyEffect["effect"];
  why: string;
}

/** Checks a runtime's settings against what its Kata knows and what they do to guests. Pure. */
export function judgeSettings({ platform: name, manifest }: Subject, settings: RuntimeSettings): JudgedSettings {
  const { kata, debug = false, guestProxy, acknowledgedWeakenings = [] } = settings;
  const mistakes: JudgedSettings["mistakes"] = [];
  const platform = platforms[name];
  const reader = readerOf(platform, manifest.flavour);
  const given = [...(kata ? ["kata"] : []), ...(debug ? ["debug"] : []), ...(guestProxy ? ["guestProxy"] : [])];
  if (reader === undefined) {
    const why =
      platform.vmm === "none"
        ? "runs no Kata that could read it"
        : "runs Microsoft's build of Kata, of which it is not known which keys it has";
    mistakes.push(
      ...given.map((path) => ({ path, message: `cannot be set: the platform ${name} ${why}. Remove it.` })),
    );
  }
  const found = reader === undefined ? [] : keySettings(reader, manifest.kataVersion, kata ?? {}, mistakes);
  const parameters = kata?.hypervisor?.kernel_params;
  const kernelParams = reader !== undefined && typeof parameters === "string" ? parameters.split(" ") : [];
  for (const word of kernelParams) {
    const problem = parameterProblem(word);
    if (problem !== undefined)
      mistakes.push({ path: "kata.hypervisor.kernel_params", message: `${JSON.stringify(word)} ${problem}.` });
  }
  if (reader === "contrast-go" && guestProxy)
    mistakes.push({
      path: "guestProxy",
      message:
        "is for guests of upstream Kata: Contrast's do not read it. Set the stack's registry.guest.proxy, which its image puller reads.",
    });
  const weakening = [
    ...found.filter(({ effect }) => effect === "weakens").map(({ table, key }) => `${table}.${key}`),
    ...weakeningParameters(kernelParams),
  ];
  const untried = reader === undefined ? [] : untriedSettings(manifest.kataVersion, found, kernelParams, guestProxy);
  mistakes.push(...(untried.length > 0 ? untried : acknowledgements(weakening, found, acknowledgedWeakenings)));
  const words = [...kernelParams, ...(guestProxy ? proxyParameters(guestProxy) : [])];
  if (given.length === 0 || mistakes.length > 0) return { settings: [], weakened: [], mistakes };

  const all = debug && reader !== undefined ? [...found, ...debugSettings(reader)] : found;
  const keys = (table: TableName): Table =>
    Object.fromEntries(all.filter((one) => one.table === table).map(({ key, value }) => [key, value]));
  return {
    changes: {
      keys: { hypervisor: keys("hypervisor"), agent: keys("agent"), runtime: keys("runtime") },
      kernelParams: words,
      debug,
      insecure: weakening.length > 0,
      commandLine: all.some(({ table, key }) => !withoutCommandLine(table).includes(key))
        ? "other"
        : words.length > 0
          ? "longer"
          : "same",
      otherRtmr0: all.some(({ table, ...setting }) => touchesRtmr0(table, setting)),
    },
    settings: [...found.filter(({ effect }) => effect !== "weakens").map(sentence), ...parameterSentences(words)],
    weakened: [
      ...found.filter(({ effect }) => effect === "weakens").map(sentence),
      ...weakeningParameters(kernelParams).map(
        (parameter) => `The kernel parameter ${parameter} is set, of which it is not known what it does to guests.`,
      ),
    ],
    mistakes,
  };
}

/** Of a Kata that nobody here has looked at, whatever is more than harmless is refused, acknowledged or not. */
function untriedSettings(
  version: string,
  found: readonly Setting[],
  kernelParams: readonly string[],
  guestProxy: GuestProxy | undefined,
): JudgedSettings["mistakes"] {
  if (!isUnread(version)) return [];
  const paths = [
    ...found.filter(({ effect }) => effect !== "harmless").map(({ table, key }) => `kata.${table}.${key}`),
    ...(kernelParams.length > 0 ? ["kata.hypervisor.kernel_params"] : []),
    ...(guestProxy ? ["guestProxy"] : []),
  ];
  const message = `cannot be set: Kata ${version} is newer than ${newestRead}, the newest whose sources were read here, and nobody has looked at what it does to guests there. Remove it, or lock Kata ${newestRead} or an older one.`;
  return paths.map((path) => ({ path, message }));
}

const readerOf = ({ vmm }: Platform, flavour: string): Reader | undefined => {
  const readers: Partial<Record<FlavourName, Reader>> = {
    "contrast-go": "contrast-go",
    "kata-go": "kata-go",
    "kata-rs": "kata-rs",
  };
  return vmm === "qemu" && Object.hasOwn(readers, flavour) ? readers[flavour as FlavourName] : undefined;
};

/** All keys but `kernel_params`, which is a list of its own. */
function keySettings(
  reader: Reader,
  version: string,
  kata: KataOverrides,
  mistakes: JudgedSettings["mistakes"],
): Setting[] {
  return tableNames.flatMap((table) =>
    Object.entries(kata[table] ?? {}).flatMap(([key, value]): Setting[] => {
      const path = `kata.${table}.${key}`;
      const refuse = (message: string) => {
        mistakes.push({ path, message });
        return [];
      };
      const type = typeOfKey(reader, version, table, key);
      if (type === undefined) return refuse(unknownKey(reader, version, table, key));
      const problem = typeProblem(reader, type, key, value);
      if (problem !== undefined) return refuse(`is ${JSON.stringify(value)}, ${problem}.`);
      if (table === "hypervisor" && key === "kernel_params") return [];
      const known = effectOf(table, key);
      if (known === undefined)
        return refuse("cannot be set: Kata knows it, but nobody has looked at what it does to guests.");
      const { effect, why, safe = [] } = known;
      const words = allowedWords(known, reader === "kata-rs");
      if (effect === "decided") return refuse(`cannot be set here: ${why}.`);
      if (words !== undefined && !words.includes(String(value)))
        return refuse(`is ${JSON.stringify(value)}. Allowed: ${words.join(", ")}.`);
      const isSafe = safe.some((one) => JSON.stringify(one) === JSON.stringify(value));
      return [{ table, key, value, why, effect: isSafe ? "harmless" : effect }];
    }),
  );
}

/** Where else it is a key, if it is one: of another table, another version, or another program. */
function unknownKey(reader: Reader, version: string, table: TableName, key: string): string {
  const said = `is no key that Kata ${version} (${reader}) knows in [${table}]`;
  const elsewhere = tableNames.find((other) => typeOfKey(reader, version, other, key) !== undefined);
  if (elsewhere !== undefined) return `${said}: it is one of [${elsewhere}].`;
  const other = kataReleases.find((release) => typeOfKey(reader, release.version, table, key) !== undefined);
  if (other !== undefined) return `${said}: Kata ${other.version} does.`;
  const readers: Reader[] = ["kata-go", "contrast-go", "kata-rs"];
  const program = readers.find((one) => typeOfKey(one, version, table, key) !== undefined);
  if (program !== undefined) return `${said}: ${program} does.`;
  return `${said}${didYouMean(key, keysOf(reader, version, table))}`;
}

const fractions = ["default_vcpus", "overhead_vcpus"];
/** Zero is no time to wait in, or makes Kata take its own default. */
const positive = [
  ...["default_vcpus", "default_memory", "dial_timeout", "dial_timeout_ms", "reconnect_timeout_ms"],
  ...["create_container_timeout", "health_check_request_timeout_ms"],
];

function typeProblem(reader: Reader, type: KeyType, key: string, value: Value): string | undefined {
  switch (type) {
    case "text":
      return typeof value === "string" ? undefined : "expected a text";
    case "flag":
      return typeof value === "boolean" ? undefined : "expected true or false";
    case "texts":
      return Array.isArray(value) ? undefined : "expected a list of texts";
    case "number": {
      if (typeof value !== "number" || !Number.isFinite(value) || value < 0) return "expected a number, 0 or more";
      if (value === 0 && positive.includes(key)) return "expected more than 0";
      const { least, most } = boundsOf(reader, key);
      if (value < least) return `expected at least ${least}: Kata takes no less as it is written`;
      if (value > most) return `expected at most ${most}: Kata takes no more as it is written`;
      return Number.isSafeInteger(value) || fractions.includes(key) ? undefined : "expected a whole number";
    }
    default:
      return undefined;
  }
}

/** The user says of each key that weakens that this is known, and of no other. */
function acknowledgements(
  weakening: readonly string[],
  found: readonly Setting[],
  acknowledged: readonly string[],
): JudgedSettings["mistakes"] {
  const open = weakening.filter((name) => !acknowledged.includes(name));
  const whyOf = (name: string) => found.find(({ table, key }) => name === `${table}.${key}`)?.why;
  return [
    ...open.map((name) => ({
      path: pathOf(name),
      message: `weakens the guest: ${whyOf(name) ?? `of ${JSON.stringify(name.split(":")[1])} it is not known what it does to guests`}. Remove it, or say that you know: "acknowledgedWeakenings: [${name}]". The handler's name then says insecure.`,
    })),
    ...acknowledged.flatMap((name, index) =>
      weakening.includes(name)
        ? []
        : [
            {
              path: `acknowledgedWeakenings[${index}]`,
              message: `${JSON.stringify(name)} is nothing that is set and weakens the guest${didYouMean(name, weakening)}${weakening.length === 0 ? " Remove it." : ""}`,
            },
          ],
    ),
  ];
}

const pathOf = (name: string): string => `kata.${name.split(":")[0]}`;

/** Kata's own logs on the host, in detail: nothing here is told to the guest, so that what is measured stays. */
function debugSettings(reader: Reader): Setting[] {
  const of = (table: TableName, key: string, value: Value): Setting => ({
    table,
    key,
    value,
    effect: "harmless",
    why: "",
  });
  const levels = tableNames.map((table) => of(table, "log_level", "debug"));
  return [of("runtime", "enable_debug", true), ...(reader === "kata-rs" ? levels : [])];
}

const sees: Record<KeyEffect["effect"], string> = {
  harmless: " Verifiers see nothing of it.",
  measured: " Verifiers see it in what a launch measures.",
  weakens: "",
  decided: "",
};

const sentence = ({ table, key, value, effect, why }: Setting): string =>
  `${table}.${key} is ${JSON.stringify(value)}: ${why}.${sees[effect]}`;

const parameterSentences = (words: readonly string[]): string[] =>
  words.length === 0
    ? []
    : [`Kernel parameters are added to the payload's: ${words.join(" ")}. ${sees.measured.trim()}`];

/**
 * The configuration with what is set: the one place where both come together.
 *
 * @param puller path on the node of what Contrast's guests read about registries
 */
export function withChanges(
  configuration: KataConfiguration,
  changes: KataChanges | undefined,
  puller?: string,
): KataConfiguration {
  if (!("qemu" in configuration.hypervisor)) return configuration;
  const { keys, kernelParams } = changes ?? noChanges;
  const { qemu } = configuration.hypervisor;
  const parameters = [qemu.kernel_params, ...kernelParams].filter((text) => text !== undefined && text !== "");
  return {
    hypervisor: {
      qemu: {
        ...qemu,
        ...keys.hypervisor,
        ...(kernelParams.length > 0 && { kernel_params: parameters.join(" ") }),
        ...(puller !== undefined && { contrast_imagepuller_config: puller }),
      },
    },
    agent: { kata: { ...configuration.agent.kata, ...keys.agent } },
    runtime: { ...configuration.runtime, ...keys.runtime },
  };
}

const noChanges: Pick<KataChanges, "keys" | "kernelParams"> = {
  keys: { hypervisor: {}, agent: {}, runtime: {} },
  kernelParams: [],
};
