import { canonicalJson, sha256 } from "../../runtime/canonical.ts";
import { isChild, nodeInstallerCard } from "../../runtime/cards.ts";
import { deriveHandler } from "../../runtime/handler.ts";
import { installerLabels } from "../../runtime/names.ts";
import type { InstallSpec, RuntimeSpec } from "../../runtime/spec.ts";
import { leafDifferences } from "../preview/differences.ts";
import type { Inputs } from "../preview/inputs.ts";
import type { Preview } from "../preview/preview.ts";
import type { Step } from "../preview/step.ts";
import { code, exchange } from "../text.ts";
import { differenceBlock } from "./difference-block.ts";
import { configMapType, type GroupChange } from "./groups.ts";
import type { Ledger } from "./ledger.ts";
import { claim, known, type Told, unknown } from "./line.ts";
import { readSpec, runtimeOf, specMapSchema } from "./read-spec.ts";

/** What installers are told to do on their nodes: the install specs, by their digests, and what no card says of them. */
export function specLines(changes: GroupChange[], { steps }: Preview, ledger: Ledger): Told[] {
  const maps = steps.filter(isSpec);
  return [
    ...maps.flatMap((step) => [specLine(step, steps, ledger), ...nameLines(readSpec(step.after))]),
    ...changes.flatMap(configurationLines),
  ];
}

/** By the component that it belongs to, and by what is in it: nothing but a spec that this version reads. */
function isSpec({ type, urn, before, after }: Step): boolean {
  const isOne = (inputs: Inputs | undefined) =>
    inputs === undefined ||
    (readSpec(inputs) !== undefined && Object.keys(specMapSchema.loose().parse(inputs).data).join() === "spec.json");
  return type === configMapType && isChild(urn, nodeInstallerCard) && isOne(before) && isOne(after);
}

function specLine(step: Step, steps: Step[], ledger: Ledger): Told {
  const { op, name, before, after, parent } = step;
  const [old, now] = [before, after].map(documentOf);
  if (now === undefined) return claim(known(`Install spec ${code(name)} goes.`), step, ["(delete)"]);
  const { runtimes: _, ...settings } = now.spec;
  const place = (after?.metadata as { namespace?: unknown } | undefined)?.namespace;
  const digest = old === undefined ? code(now.digest) : exchange(old.digest, now.digest);
  const line = known(
    `Install spec ${code(name)} of group ${code(now.spec.group)}, in namespace ${code(place)}: SHA-256 ${digest}; besides the runtimes it says ${code(canonicalJson(settings))}.`,
  );
  const labels = installerLabels(now.spec.group);
  const told = ledger
    .changes(step)
    .filter(
      ({ path, before: from, after: to }) =>
        (path === "metadata.namespace" && from === undefined) ||
        Object.entries(labels).some(
          ([label, value]) =>
            path === `metadata.labels[${JSON.stringify(label)}]` && from === undefined && to === value,
        ),
    );
  const own = claim(line, step, [`(${op})`, 'data["spec.json"]', ...told.map(({ path }) => path)]);
  const nameIn = (inputs: Inputs | undefined) => (inputs?.metadata as { name?: unknown } | undefined)?.name;
  const gone = steps.filter((other) => isSpec(other) && other.parent === parent).map((other) => nameIn(other.before));
  return steps
    .filter(({ type, parent: of }) => type === "kubernetes:apps/v1:DaemonSet" && of === parent)
    .reduce((line, pods) => claim(line, pods, mountsOf(pods, ledger, nameIn(after), gone)), own);
}

/** The spec's own name in its pods, where it takes the place of the one that goes. */
const mountsOf = (pods: Step, ledger: Ledger, name: unknown, gone: unknown[]): string[] =>
  ledger
    .changes(pods)
    .filter(
      ({ path, before, after }) =>
        /^spec\.template\.spec\.volumes\[\d+\]\.configMap\.name$/.test(path) &&
        after !== undefined &&
        after === name &&
        (before === undefined || gone.includes(before)),
    )
    .map(({ path }) => path);

function documentOf(inputs: Inputs | undefined): { spec: InstallSpec; digest: string } | undefined {
  const spec = readSpec(inputs);
  return spec && { spec, digest: sha256(specMapSchema.loose().parse(inputs).data["spec.json"]) };
}

/** A handler's name is made of what it is, which is why a line that names it says enough. Where it is not, none does. */
function nameLines(spec: InstallSpec | undefined): Told[] {
  return (spec?.runtimes ?? []).flatMap((runtime) => {
    const { handler, platform, files, kataConfig, containerd } = runtime;
    const contents = (name: string) =>
      JSON.parse(JSON.stringify({ files, kataConfig, containerd }).replaceAll(handler, name)) as RuntimeSpec;
    if (deriveHandler(platform, contents) === handler) return [];
    return [
      unknown(
        `What ${code(handler)} installs is not explained here: its name is not the one that follows from its content.`,
        differenceBlock(leafDifferences(undefined, runtime)),
      ),
    ];
  });
}

/** Of runtimes that are exchanged: how Kata and containerd are configured otherwise. */
function configurationLines({ replaced, specBefore, specAfter }: GroupChange): Told[] {
  return replaced.flatMap((pair) => {
    const [old, now] = [runtimeOf(specBefore, pair.before.handler), runtimeOf(specAfter, pair.after.handler)];
    if (!old || !now) return [];
    const told = ({ handler, kataConfig, containerd, host }: RuntimeSpec) =>
      JSON.parse(JSON.stringify({ kataConfig, containerd, host }).replaceAll(handler, "<handler>")) as object;
    const leaves = leafDifferences(told(old), told(now));
    if (leaves.length === 0) return [];
    return [known(`${code(now.handler)} is configured otherwise than ${code(old.handler)}:`, differenceBlock(leaves))];
  });
}
