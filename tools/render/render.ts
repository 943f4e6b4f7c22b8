import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { parse, parseDocument, stringify } from "yaml";
import { z } from "zod";
import { readConfiguration, type StackConfiguration } from "../../components/config/read.ts";
import { groupOfInstaller, specKey } from "../../runtime/names.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { replaceFile } from "../files/replace.ts";
import { idOf, type KubernetesObject, objectsOf } from "./objects.ts";

export interface RenderOptions {
  /** The stack's file. */
  stack: string;
  /** The directory that Argo CD, Flux or `kubectl apply -k` reads. */
  output: string;
  /** RuntimeClasses that may go: nothing runs on them any more. */
  dropClass: string[];
}

/**
 * Writes what the stack asks for as files, with a kustomization that lists them in order. The directory's own content is
 * all that is remembered: a RuntimeClass that the stack no longer has stays until it is named, because pods of the class
 * may still be started again.
 *
 * @returns what was written, kept and removed, a line each
 */
export async function render({ stack, output, dropClass }: RenderOptions): Promise<string[]> {
  const configuration = await readStack(stack);
  const before = await readDirectory(output);
  const objects = await objectsOf(configuration);
  refuseLostGroups(configuration, before, stack);
  const kept = classesToKeep(objects, before, dropClass);
  const files = new Map([...objects, ...kept].map((object) => [fileOf(object), text(object)]));
  files.set(kustomization, stringify({ ...header, resources: [...files.keys()] }));

  const gone = [...before.keys()].filter((file) => !files.has(file));
  // The list last: until it is there, everything that the old one lists is there, too.
  for (const [file, content] of files) await replaceFile(join(output, file), content);
  for (const file of gone) await rm(join(output, file), { force: true });
  return [
    `${output}: ${files.size - 1} objects, to be applied by kubectl apply -k ${output}, Argo CD or Flux.`,
    ...gone.map((file) => `Removed: ${file}.`),
    ...kept.map(
      ({ metadata: { name } }) =>
        `Kept: RuntimeClass ${name}, which the stack no longer has. When no pod has runtimeClassName ${name}, render again with --drop-class ${name}.`,
    ),
  ];
}

const kustomization = "kustomization.yaml";
const header = {
  apiVersion: "kustomize.config.k8s.io/v1beta1",
  kind: "Kustomization",
  // In the order of the list, which Kustomize would sort by kind otherwise.
  sortOptions: { order: "fifo" },
};

const fileOf = (object: KubernetesObject): string => `${idOf(object).toLowerCase().replaceAll(" ", "-")}.yaml`;
const text = (object: KubernetesObject): string => stringify(object, { lineWidth: 0 });

/** The stack's configuration as for a cluster of kind yaml: where the cluster is, is not the file's business here. */
async function readStack(file: string): Promise<StackConfiguration> {
  const content = await readFile(file, "utf8").catch((error: Error) => {
    throw new Refusal("no-stack", `The stack's file ${file} cannot be read: ${error.message}.`);
  });
  const document = parseDocument(content);
  const [mistake] = document.errors;
  if (mistake) throw new Refusal("no-yaml", `${file} is no YAML: ${mistake.message.split("\n")[0]}`);
  const config: unknown = document.toJS()?.config;
  if (typeof config !== "object" || config === null)
    throw new Refusal("no-config", `${file} has no "config": expected a stack's file, such as Pulumi.prod.yaml.`);
  const prefix = "contrast-runtime:";
  const entries = Object.entries(config)
    .filter(([key]) => key.startsWith(prefix) && key !== `${prefix}cluster`)
    .map(([key, value]) => [key.slice(prefix.length), typeof value === "string" ? value : JSON.stringify(value)]);
  const sealed = entries.flatMap(([key = "", value]) => (value?.includes('{"secure":') ? [key] : []));
  if (sealed.length > 0)
    throw new Refusal(
      "secrets",
      `${file} has secrets below ${sealed.join(" and ")}, which would be written in plain text. Manifests are for stacks without: nodes that exist and log in to the registry by themselves.`,
    );
  return await readConfiguration({
    stack: basename(file).replace(/^Pulumi\.|\.yaml$/g, ""),
    // What Pulumi.yaml says for every stack.
    entries: {
      installerImage: "local",
      registry: "{}",
      ...Object.fromEntries(entries),
      cluster: JSON.stringify({ kind: "yaml", directory: "rendered" }),
    },
    secretKeys: [],
    readText: (path) => readFile(path, "utf8"),
    imageDigest: () => {
      throw new Error("no image of this machine is asked for");
    },
  });
}

/** What an earlier rendering left, by file. */
async function readDirectory(directory: string): Promise<Map<string, KubernetesObject>> {
  const list = join(directory, kustomization);
  if (!existsSync(list)) return new Map();
  const { data, error } = kustomizationFile.safeParse(parse(await readFile(list, "utf8")));
  if (error)
    throw new Refusal("not-rendered", `${list} was not written by this command: choose another directory as --output.`);
  const objects = await Promise.all(
    data.resources.map(async (file): Promise<[string, KubernetesObject]> => {
      const content = await readFile(join(directory, file), "utf8").catch((cause: Error) => {
        throw new Refusal("file-missing", `${list} lists ${file}, which cannot be read: ${cause.message}.`);
      });
      const object = kubernetesObject.safeParse(parse(content)).data;
      if (object === undefined)
        throw new Refusal(
          "no-object",
          `${join(directory, file)} is no Kubernetes object: restore it and run this again.`,
        );
      return [file, object];
    }),
  );
  return new Map(objects);
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

/** A group's installers take its runtimes off the nodes; without them, nothing does. */
function refuseLostGroups({ groups }: StackConfiguration, before: Map<string, KubernetesObject>, stack: string): void {
  const names = groups.map(({ name }) => name);
  for (const { kind, metadata } of before.values()) {
    const group = kind === "DaemonSet" ? groupOfInstaller(metadata.name) : undefined;
    if (group === undefined || names.includes(group) || hasNoRuntimes(group, before)) continue;
    throw new Refusal(
      "group-lost",
      `${stack} no longer has the group ${group}, and what is rendered has runtimes for it, which would stay on the nodes. First give the group runtimes: [], render, apply it and wait until contrast-runtime status --group ${group} says ready; then remove the group.`,
    );
  }
}

const hasNoRuntimes = (group: string, objects: Map<string, KubernetesObject>): boolean =>
  [...objects.values()].some((object) => {
    const spec = specFile.safeParse(object).data?.data[specKey];
    const parsed = spec === undefined ? undefined : emptySpec.safeParse(JSON.parse(spec)).data;
    return parsed?.group === group;
  });

const specFile = z.looseObject({ kind: z.literal("ConfigMap"), data: z.record(z.string(), z.string()) });
const emptySpec = z.looseObject({ group: z.string(), runtimes: z.array(z.unknown()).length(0) });

function classesToKeep(
  objects: KubernetesObject[],
  before: Map<string, KubernetesObject>,
  dropped: string[],
): KubernetesObject[] {
  const isClass = ({ kind }: KubernetesObject) => kind === "RuntimeClass";
  const wanted = new Set(objects.filter(isClass).map(({ metadata }) => metadata.name));
  const left = [...before.values()].filter((object) => isClass(object) && !wanted.has(object.metadata.name));
  for (const name of dropped) {
    if (left.some(({ metadata }) => metadata.name === name)) continue;
    throw new Refusal(
      "class-not-left",
      wanted.has(name)
        ? `--drop-class ${name}: the stack still has this class. Take the runtime off its group first, and render.`
        : `--drop-class ${name}: no class of this name was rendered. Left over: ${left.map(({ metadata }) => metadata.name).join(", ") || "none"}.`,
    );
  }
  return left.filter(({ metadata }) => !dropped.includes(metadata.name));
}
