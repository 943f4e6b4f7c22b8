import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { parse } from "yaml";
import * as z from "zod";
import { type Components, componentsSchema } from "../../review/preview/rendered.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { cannotBeRead } from "../../runtime/unreadable.ts";
import type { KubernetesObject } from "./objects.ts";

/** What is applied, in order. */
export const kustomization = "kustomization.yaml";

/** What the components were told: not applied, and what `review rendered` makes its summary of. */
export const componentsFile = "components.json";

/** The kustomization but for its list. */
export const header = {
  apiVersion: "kustomize.config.k8s.io/v1beta1",
  kind: "Kustomization",
  // In the order of the list, which Kustomize would sort by kind otherwise.
  sortOptions: { order: "fifo" },
};

/**
 * The objects that a rendering left, by file (none where there is no rendering), what the kustomization says besides
 * them that no rendering does, and what every rendering says that it lacks.
 *
 * @param notRendered the sentence for a directory that something else made
 */
export async function readDirectory(
  directory: string,
  notRendered: (list: string) => string,
): Promise<{ objects: Map<string, KubernetesObject>; foreign: string[]; lacks: string[] }> {
  const list = join(directory, kustomization);
  if (!existsSync(list)) return { objects: new Map(), foreign: [], lacks: [] };
  const { data, error } = kustomizationFile.safeParse(yamlIn(await readFile(list, "utf8")));
  if (error) throw new Refusal("not-rendered", notRendered(list));
  const objects = await Promise.all(
    data.resources.map(async (file): Promise<[string, KubernetesObject]> => {
      const content = await readFile(join(directory, file), "utf8").catch((error: unknown) => {
        throw new Refusal("file-missing", `${list} lists ${file}: ${cannotBeRead(join(directory, file), error)}.`);
      });
      const object = kubernetesObject.safeParse(yamlIn(content)).data;
      if (object === undefined)
        throw new Refusal(
          "no-object",
          `${join(directory, file)} is no Kubernetes object: restore it and run this again.`,
        );
      return [file, object];
    }),
  );
  const { resources: _, ...others } = data;
  const own: Record<string, unknown> = header;
  const foreign = Object.keys(others).filter((key) => !isDeepStrictEqual(others[key], own[key]));
  const lacks = Object.keys(own).filter((key) => !isDeepStrictEqual(others[key], own[key]));
  return { objects: new Map(objects), foreign, lacks };
}

/** Undefined for what is no YAML, or more than one document. */
function yamlIn(text: string): unknown {
  try {
    return parse(text);
  } catch {
    return undefined;
  }
}

/** What a rendering says of its components; undefined where it is of a version that did not. */
export async function readComponents(directory: string): Promise<Components | undefined> {
  const file = join(directory, componentsFile);
  if (!existsSync(file)) return undefined;
  let document: unknown;
  try {
    document = JSON.parse(await readFile(file, "utf8"));
  } catch {
    // Refused below.
  }
  const { data } = componentsSchema.safeParse(document);
  if (data === undefined)
    throw new Refusal(
      "no-components",
      `${file} is not what this version of contrast-runtime render writes: render ${directory} again.`,
    );
  return data;
}

const kustomizationFile = z.looseObject({ resources: z.array(z.string().regex(/^[\w.-]+$/)) });
const kubernetesObject = z.looseObject({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: z.looseObject({
    name: z.string(),
    namespace: z.string().optional(),
    annotations: z.record(z.string(), z.string()).optional(),
  }),
});
