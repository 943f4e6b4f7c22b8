import type { RuntimeSettings } from "../../runtime/kata-overrides.ts";
import type { DistributionName, PlatformName } from "../../runtime/spec.ts";
import type { Mistake } from "./mistakes.ts";
import type { ClusterConfiguration } from "./schema.ts";

/** What says which nodes a group has. */
export const ways = ["selector", "names", "hosts", "pool"] as const;
export type Way = (typeof ways)[number];

/**
 * A group as the rules see it, whether a stack lists it or a program. A value that is not known yet is left out: nothing is
 * judged by it.
 */
export interface GroupPart {
  name: string;
  formerly?: string | undefined;
  /** Where it stands: `groups.<name>`, `groups[0]`; "" for a component of one group. */
  key: string;
  terms: Terms;
  /** Each way that is used, whether or not its value is known. */
  used: readonly Way[];
  nodes: {
    selector?: Labels | undefined;
    names?: readonly string[] | undefined;
    hosts?: readonly { name: string; address?: string | undefined; port?: number | undefined }[] | undefined;
    pool?: { name: string; count?: number | undefined; labels?: Labels | undefined } | undefined;
  };
  distribution: { name: DistributionName };
  runtimes: readonly (Pick<RuntimeSettings, "kata"> & {
    platform: PlatformName;
    overhead?: { teeKeys?: boolean | undefined } | undefined;
  })[];
  tolerations?:
    | readonly { operator?: string | undefined; key?: string | undefined; value?: string | undefined }[]
    | undefined;
  minimumNodes?: number | undefined;
  ignoreNodes: readonly string[];
  verifySandbox: boolean;
  /** Seconds. */
  stallTimeout?: number | undefined;
  /** Only stacks say. */
  cluster?: ClusterConfiguration["kind"] | undefined;
}

export type Labels = Record<string, string>;

/** What users call the keys that say which nodes a group has: paths below the group, and words in sentences. */
export interface Terms {
  /** Where all of them are. */
  nodes: string;
  /** What is said to be missing if there is none. */
  missing: string;
  paths: Record<Way, string> & { poolName: string };
  words: Partial<Record<Way, string>>;
}

/** Authorities that no host is made to trust. */
export const unusedAuthorities = (hosts: string): string =>
  `reaches nodes by SSH only, and no group has ${hosts}. Let the nodes' own set-up trust it, and remove it here.`;

/** What must hold between keys: each breach is a mistake. */
export type Rule<Part> = (part: Part) => Iterable<Mistake>;

/** The user's path of a part of the group. */
export const at = ({ key }: Pick<GroupPart, "key">, path: string): string =>
  key && path ? `${key}.${path}` : key || path;

/** The ways that there are, as a sentence lists them. */
export const listed = ({ words }: Terms, conjunction: string): string => {
  const all = ways.flatMap((way) => words[way] ?? []);
  return [...all.slice(0, -2), all.slice(-2).join(conjunction)].join(", ");
};
