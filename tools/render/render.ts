import { existsSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { stringify } from "yaml";
import * as z from "zod";
import type { StackConfiguration } from "../../components/config/read.ts";
import type { Components } from "../../review/preview/rendered.ts";
import { canonicalJson } from "../../runtime/canonical.ts";
import { groupOfInstaller, specKey, unresolvedHandler } from "../../runtime/names.ts";
import { listed } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { cannotBeRead } from "../../runtime/unreadable.ts";
import { replaceFile } from "../files/replace.ts";
import { configurationOf, readStackFile, stackNameOf } from "../files/stack-file.ts";
import { componentsFile, header, kustomization, readDirectory } from "./directory.ts";
import { idOf, type KubernetesObject, registeredBy } from "./objects.ts";

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
  const foreignList = (list: string) =>
    `${list} was not written by this command: choose another directory as --output.`;
  const { objects: before, lacks } = await readDirectory(output, foreignList);
  // What another kustomization lists would be taken for what is no longer rendered, and removed.
  if (lacks.length > 0) throw new Refusal("not-rendered", foreignList(join(output, kustomization)));
  const { objects, components, ownerOf, referenceValues, cdhImage } = await registeredBy(configuration);
  refuseLostGroups(configuration, before, stack);
  const kept = classesToKeep(objects, before, dropClass);
  const files = new Map([...objects, ...kept].map((object) => [fileOf(object), text(object)]));
  const list = stringify({ ...header, resources: [...files.keys()] });
  // What a stack has as outputs: for people and verifiers, and so not in the list of what is applied.
  files.set(referenceValuesFile, `${JSON.stringify(referenceValues, undefined, 2)}\n`);
  const said: Components = {
    schemaVersion: 1,
    stack: stackNameOf(stack),
    components: Object.fromEntries(
      [...components].map(([place, inputs]) => [
        place,
        { inputs, objects: objects.filter((object) => ownerOf(object) === place).map(fileOf) },
      ]),
    ),
  };
  files.set(componentsFile, `${canonicalJson(said, 2)}\n`);
  if (cdhImage !== "") files.set(cdhImageFile, cdhImage.endsWith("\n") ? cdhImage : `${cdhImage}\n`);
  files.set(kustomization, list);

  await refuseForeign(output, files);
  const leftBefore = existsSync(join(output, cdhImageFile)) ? [...before.keys(), cdhImageFile] : [...before.keys()];
  const gone = leftBefore.filter((file) => !files.has(file));
  // The list last: until it is there, everything that the old one lists is there, too.
  for (const [file, content] of files) await replaceFile(join(output, file), content);
  for (const file of gone) await rm(join(output, file), { force: true });
  return [
    `${output}: ${objects.length + kept.length} objects, to be applied by kubectl apply -k ${output}, Argo CD or Flux.`,
    `${output}/${referenceValuesFile}: what verifiers will see, by handler.`,
    `${output}/${componentsFile}: from it, contrast-runtime review rendered says what a change of the manifests does.`,
    ...(cdhImage === "" ? [] : [`${output}/${cdhImageFile}: for the "cdh.toml" of guests that pull images.`]),
    ...moved(objects, before).map((object) => {
      const { name } = object.metadata;
      const file = join(output, fileOf(object));
      return `Moved: RuntimeClass ${name}, to the handler ${object.handler}. Kubernetes changes no class's handler: Argo CD and Flux make the class anew, as its annotations say; with kubectl, run this before apply -k: kubectl replace --force -f ${file}`;
    }),
    ...gone.map((file) => `Removed: ${file}.`),
    ...kept.map(
      ({ metadata: { name } }) =>
        `Kept: RuntimeClass ${name}, which the stack no longer has. When no pod has runtimeClassName ${name}, render again with --drop-class ${name}.`,
    ),
  ];
}

/** A directory in which somebody keeps other things: what is no longer rendered could not be told from them. */
async function refuseForeign(output: string, files: ReadonlyMap<string, string>): Promise<void> {
  if (!existsSync(output) || existsSync(join(output, kustomization))) return;
  const names = await readdir(output).catch((error: unknown) => {
    throw new Refusal(
      "no-directory",
      `--output ${cannotBeRead(output, error)}. Expected a directory, or a name that is not there yet.`,
    );
  });
  const foreign = names.filter((name) => !name.startsWith(".") && !files.has(name)).sort();
  if (foreign.length === 0) return;
  throw new Refusal(
    "not-empty",
    `--output ${resolve(output)} is not empty and holds no rendering: ${listed(foreign, 3)}. Expected a directory of the manifests' own: name one that is empty or not there yet.`,
  );
}

/** As the stack's output `referenceValues`. */
const referenceValuesFile = "reference-values.json";
/** As the stack's output `cdhImage`; not there without `registry.guest`. */
const cdhImageFile = "cdh-image.toml";

const fileOf = (object: KubernetesObject): string => `${idOf(object).toLowerCase().replaceAll(" ", "-")}.yaml`;
const text = (object: KubernetesObject): string => stringify(object, { lineWidth: 0 });

async function readStack(file: string): Promise<StackConfiguration> {
  const config = await readStackFile(file);
  // How the cluster is reached goes into no manifest.
  const sealed = Object.entries(config)
    .filter(([key, value]) => key !== "cluster" && JSON.stringify(value).includes('{"secure":'))
    .map(([key]) => key);
  if (sealed.length > 0)
    throw new Refusal(
      "secrets",
      `${file} has secrets below ${sealed.join(" and ")}, which would be written in plain text. ${withoutSecrets}`,
    );
  refuseOtherClusters(file, rawStack.parse(config));
  return await configurationOf(file, config, { plainSecretAdvice: `Manifests hold none. ${withoutSecrets}` });
}

const withoutSecrets =
  "Take it out of the stack's file, and let nodes log in to the registry by themselves (their containerd's or the kubelet's credentials), or pull from a registry that asks for no login (registry.prefix).";

/** As far as it decides whether manifests can say it; whether the rest is right, is the configuration's own check. */
const rawStack = z.object({
  cluster: z.looseObject({ kind: z.string().optional() }).optional().catch(undefined),
  groups: z.record(z.string(), z.looseObject({ nodes: z.looseObject({}).optional().catch(undefined) })).catch({}),
});

/** Clusters and nodes that Pulumi makes, looks up or prepares: objects do nothing of it. In the words of the user's own file. */
function refuseOtherClusters(file: string, { cluster, groups }: z.output<typeof rawStack>): void {
  if (cluster?.kind === "local")
    throw new Refusal(
      "local",
      `${file}: cluster.kind: "local" is a cluster on this machine, with an image that was built here. Manifests are for clusters that exist: expected "kubeconfig" or "aks", and an installerImage by digest.`,
    );
  for (const [name, { nodes }] of Object.entries(groups)) {
    if (nodes?.hosts !== undefined)
      throw new Refusal(
        "hosts",
        `groups.${name}.nodes.hosts: are reached by SSH, which no manifest does. Prepare the hosts by other means, and say which nodes they are with selector or names.`,
      );
    if (nodes?.pool !== undefined)
      throw new Refusal(
        "pool",
        `groups.${name}.nodes.pool: is made or looked up in Azure, which no manifest does. Make the pool by other means, and say which nodes it has with selector, such as selector: { kubernetes.azure.com/agentpool: POOL }.`,
      );
  }
}

/** A group's installers take its runtimes off the nodes; without them, nothing does. */
function refuseLostGroups({ groups }: StackConfiguration, before: Map<string, KubernetesObject>, stack: string): void {
  // What a renamed group had, its new name's installers take over.
  const names = groups.flatMap(({ name, formerly }) => [name, formerly]);
  for (const { kind, metadata } of before.values()) {
    const group = kind === "DaemonSet" ? groupOfInstaller(metadata.name) : undefined;
    if (group === undefined || names.includes(group) || hasNoRuntimes(group, before)) continue;
    throw new Refusal(
      "group-lost",
      `${stack} no longer has the group ${group}, and what is rendered has runtimes for it, which would stay on the nodes. First give the group runtimes: [], render, apply it and wait until contrast-runtime status --group ${group} says ready; then remove the group. If it has another name now, give that group formerly: ${group}.`,
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

/** Classes that led to another handler before. */
const moved = (objects: KubernetesObject[], before: Map<string, KubernetesObject>): KubernetesObject[] =>
  objects.filter((object) => {
    const was = before.get(fileOf(object));
    return object.kind === "RuntimeClass" && was !== undefined && was.handler !== object.handler;
  });

function classesToKeep(
  objects: KubernetesObject[],
  before: Map<string, KubernetesObject>,
  dropped: string[],
): KubernetesObject[] {
  const isClass = ({ kind }: KubernetesObject) => kind === "RuntimeClass";
  const wanted = new Set(objects.filter(isClass).map(({ metadata }) => metadata.name));
  // No pod keeps a name that is resolved at admission, and without its policy such a class only makes pods that never start.
  const left = [...before.values()].filter(
    (object) => isClass(object) && object.handler !== unresolvedHandler && !wanted.has(object.metadata.name),
  );
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
