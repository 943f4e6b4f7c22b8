import { notKnownYet } from "../text.ts";
import type { RawStep, State } from "./engine-output.ts";
import type { Inputs } from "./inputs.ts";

/** What the engine plans to do with one resource. */
export interface Step {
  op: string;
  urn: string;
  /** Its own type, such as `kubernetes:apps/v1:DaemonSet`. */
  type: string;
  /** What its users call it: an object of Kubernetes by its name in the cluster. The engine's own name is in the URN. */
  name: string;
  /** URN of the parent. */
  parent: string | undefined;
  /** URN of the provider; absent for components and providers. */
  provider: string | undefined;
  /** Absent for what is created, or deleted. */
  before: Inputs | undefined;
  after: Inputs | undefined;
  /** Property paths that differ, as the provider names them; whole properties where it says no more. */
  paths: string[];
  /** What the engine itself is told of it, such as `protect`, on both sides; empty where there is only one. */
  options: { before: Inputs; after: Inputs };
}

/** The resource's own type; before it stand those of its parents. */
export function typeOf(urn: string): string {
  const [, , types = ""] = urn.split("::");
  return types.slice(types.lastIndexOf("$") + 1);
}

export function resolve({ op, urn, before, after, paths }: RawStep): Step {
  const [old, now] = [before ?? undefined, after && op !== "delete" ? after : undefined];
  return {
    op,
    urn,
    type: typeOf(urn),
    name: nameOf(urn, (now ?? old)?.inputs),
    // The engine's events have empty texts where the document has none.
    parent: after?.parent || before?.parent || undefined,
    provider: providerOf(after) ?? providerOf(before),
    before: old && (old.inputs ?? {}),
    after: now && (now.inputs ?? {}),
    paths: paths.toSorted(),
    options: {
      before: old ? optionsOf(old, now ? all : whenItGoes) : {},
      after: now ? optionsOf(now, old ? all : whenItComes) : {},
    },
  };
}

function nameOf(urn: string, inputs: Inputs | undefined): string {
  const [, , , ...logical] = urn.split("::");
  const [, kind] = /^kubernetes:.*:(\w+)$/.exec(typeOf(urn)) ?? [];
  const { name, namespace } = (inputs?.metadata ?? {}) as { name?: unknown; namespace?: unknown };
  if (kind === undefined || !isKnown(name)) return logical.join("::");
  // What a role allows, it allows in its namespace.
  return /^Role(Binding)?$/.test(kind) && isKnown(namespace) ? `${namespace}/${name}` : name;
}

const isKnown = (text: unknown): text is string =>
  typeof text === "string" && !["", "[secret]", notKnownYet].includes(text);

/** A reference is the provider's URN and its id, which a preview may not know. */
const providerOf = (state: State): string | undefined => state?.provider?.replace(/::[^:]*$/, "") || undefined;

/** What a resource is told by its options in the program. What the engine notes down by itself is none of them. */
const optionNames = [
  ...["parent", "protect", "retainOnDelete", "deletedWith", "external", "importID", "aliases", "ignoreChanges"],
  ...["replaceOnChanges", "replaceWith", "deleteBeforeReplace", "customTimeouts", "resourceHooks"],
];

const all = ["provider", ...optionNames];

/** What of them already matters when the resource is made; the others say how it changes, and are told when they do. */
const whenItComes = all.filter(
  (name) => !/^(provider|parent|aliases|replaceOnChanges|replaceWith|deleteBeforeReplace|customTimeouts)$/.test(name),
);

const whenItGoes = ["retainOnDelete", "resourceHooks"];

function optionsOf(state: NonNullable<State>, names: string[]): Inputs {
  const told = names.flatMap((name) => {
    const value = name === "provider" ? providerOf(state) : state[name];
    return isNothing(value) ? [] : [[name, value] as const];
  });
  return Object.fromEntries(told);
}

const isNothing = (value: unknown) =>
  value === undefined || value === null || value === false || value === "" || JSON.stringify(value) === "[]";
