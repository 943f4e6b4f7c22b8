import * as z from "zod";
import { readSpec } from "../summary/read-spec.ts";
import { leafDifferences, treeDifferences } from "./differences.ts";
import { type Inputs, inputsSchema } from "./inputs.ts";
import type { Preview } from "./preview.ts";
import { resolve, type Step } from "./step.ts";

/** What `contrast-runtime render` writes beside the objects: all that a summary needs besides them. */
export const componentsSchema = z.object({
  schemaVersion: z.literal(1),
  stack: z.string(),
  /**
   * What each component is told, and the files of the objects that are directly below it, by its type below those of its
   * parents and its name: "TYPE$TYPE::NAME". A class that is only kept is below none.
   */
  components: z.record(z.string(), z.object({ inputs: inputsSchema, objects: z.array(z.string()) })),
});

export type Components = z.infer<typeof componentsSchema>;

/** A directory that `contrast-runtime render` wrote. */
export interface Rendering {
  /** By file. */
  objects: Map<string, Inputs>;
  /** Undefined where an earlier version wrote the directory. */
  components: Components | undefined;
}

/** What a preview says only of rendered manifests. */
export interface Manifests {
  /** RuntimeClasses that no component has any more and that stay. */
  kept: string[];
  /** RuntimeClasses that lead to another handler. */
  moved: { name: string; file: string }[];
  /** The rendering before does not say what its components were told, so that nothing is known of groups. */
  isBeforeUnknown: boolean;
}

const project = "contrast-runtime";

/**
 * What becomes of the objects of one rendering where another takes its place, as the engine's preview would have it. Pure.
 *
 * @param before undefined: there was none
 * @param after undefined: there is none any more
 */
export function previewOfRendered(before: Rendering | undefined, after: Rendering | undefined): Preview {
  const isBeforeUnknown = before !== undefined && before.components === undefined;
  const [old, now] = [partsOf(before, isBeforeUnknown), partsOf(after, isBeforeUnknown)];
  const stack = (after ?? before)?.components?.stack ?? "";
  const renamed = renamedGroups(old, now);
  const from = new Map(old.map((part) => [renamed.get(part.place) ?? part.key, part]));
  const to = new Map(now.map((part) => [part.key, part]));
  const prefix = `urn:pulumi:${stack}::${project}::`;
  const keys = [...new Set([...to.keys(), ...from.keys()])];
  const all = keys.map((key) => stepOf(prefix, from.get(key), to.get(key)));
  const steps = all.filter(({ op }) => op !== "same");
  const moved = steps.filter(({ op }) => op === "replace").map(({ name, urn }) => ({ name, file: fileOf(urn) }));
  return {
    project,
    stack,
    steps: steps.sort((a, b) => (a.urn < b.urn ? -1 : 1)),
    drift: [],
    pendingDeletions: [],
    inputsByUrn: new Map(all.map(({ urn, before, after }) => [urn, after ?? before ?? {}])),
    errors: [],
    warnings: [],
    manifests: { kept: keptClasses(before, after), moved, isBeforeUnknown },
  };
}

/** A component, or an object. */
interface Part {
  /** What tells it from others in both renderings. */
  key: string;
  /** Its URN behind stack and project. */
  place: string;
  /** The same of the component above it. */
  parent: string | undefined;
  inputs: Inputs;
  isObject: boolean;
}

/** Without components, where those of one side are not known: else all that there are would be new. */
function partsOf(side: Rendering | undefined, hasNoComponents: boolean): Part[] {
  if (side === undefined) return [];
  const known = hasNoComponents ? undefined : side.components;
  const components = Object.entries(known?.components ?? {}).map(([place, { inputs }]) => ({
    key: place,
    place,
    parent: undefined,
    inputs,
    isObject: false,
  }));
  const owners = ownersIn(known);
  const objects = [...side.objects].map(([file, inputs]) => {
    const parent = owners.get(file);
    const place = `${parent === undefined ? "" : `${parent.split("::")[0]}$`}${typeOf(inputs)}::${file}`;
    return { key: identityOf(inputs), place, parent, inputs, isObject: true };
  });
  return [...components, ...objects];
}

/** What Kubernetes tells an object from others by. */
function identityOf({ apiVersion, kind, metadata }: Inputs): string {
  const { namespace, name } = (metadata ?? {}) as { namespace?: unknown; name?: unknown };
  const group = String(apiVersion).includes("/") ? String(apiVersion).split("/")[0] : "core";
  return JSON.stringify([group, kind, namespace, name]);
}

/** By file, the component that the object is directly below. */
const ownersIn = (components: Components | undefined): Map<string, string> =>
  new Map(
    Object.entries(components?.components ?? {}).flatMap(([place, { objects }]) =>
      objects.map((file) => [file, place]),
    ),
  );

/** As the engine calls it, such as "kubernetes:core/v1:ConfigMap". */
function typeOf({ apiVersion, kind }: Inputs): string {
  const version = String(apiVersion);
  return `kubernetes:${version.includes("/") ? version : `core/${version}`}:${String(kind)}`;
}

const fileOf = (urn: string): string => urn.split("::").slice(3).join("::");

function stepOf(prefix: string, from: Part | undefined, to: Part | undefined): Step {
  // A class that is only kept from now on is where it was.
  const isLeft = from && (to === undefined || (to.parent === undefined && from.parent !== undefined));
  const { place, parent, isObject } = isLeft ? from : (to as Part);
  const isSame = from && to && leafDifferences(from.inputs, to.inputs).length === 0;
  const op = from === undefined ? "create" : to === undefined ? "delete" : isSame ? "same" : changeOf(from, to);
  const state = (part: Part | undefined) =>
    part && { inputs: part.inputs, ...(parent !== undefined && { parent: `${prefix}${parent}` }) };
  return resolve({
    op,
    urn: `${prefix}${place}`,
    before: state(from),
    after: state(to),
    paths: from && to && isObject ? treeDifferences(from.inputs, to.inputs).map(({ path }) => path) : [],
  });
}

/** Kubernetes changes no class's handler. */
const changeOf = (from: Part, to: Part): string =>
  from.inputs.kind === "RuntimeClass" && from.inputs.handler !== to.inputs.handler ? "replace" : "update";

/** By the component of the group before, that of the same group under its new name, as its install spec says. */
function renamedGroups(before: Part[], after: Part[]): Map<string, string> {
  const groups = (parts: Part[]) =>
    parts.flatMap(({ parent, inputs }) => {
      const spec = parent === undefined ? undefined : readSpec(inputs);
      return spec && parent !== undefined ? [{ place: parent, name: spec.group, formerly: spec.formerly }] : [];
    });
  const [old, now] = [groups(before), groups(after)];
  return new Map(
    now.flatMap(({ place, formerly }) => {
      const former = old.find(({ name }) => name === formerly);
      const isGone = former && !now.some((other) => other.place === former.place);
      return isGone && !old.some((other) => other.place === place) ? [[former.place, place] as const] : [];
    }),
  );
}

/** Those that a component had before and none has now. */
function keptClasses(before: Rendering | undefined, after: Rendering | undefined): string[] {
  const [old, now] = [before?.components && ownersIn(before.components), ownersIn(after?.components)];
  return [...(after?.objects ?? [])].flatMap(([file, object]) => {
    const { name } = (object.metadata ?? {}) as { name?: unknown };
    if (object.kind !== "RuntimeClass" || !before?.objects.has(file) || typeof name !== "string") return [];
    return (old === undefined || old.has(file)) && !now.has(file) ? [name] : [];
  });
}
