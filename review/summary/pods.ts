import { isBelow, leafDifferences, treeDifferences } from "../preview/differences.ts";
import { type Inputs, items } from "../preview/inputs.ts";
import type { Step } from "../preview/step.ts";
import { code, longestValue } from "../text.ts";
import { changeLine } from "./difference-block.ts";
import { fieldsOf } from "./fields.ts";
import type { Ledger } from "./ledger.ts";
import { claim, known, type Told } from "./line.ts";

export const daemonSetType = "kubernetes:apps/v1:DaemonSet";

const podPath = "spec.template.spec";

export function imagePaths({ before, after }: Step, from: unknown, to: unknown): string[] {
  return treeDifferences(podSpec(before) ?? {}, podSpec(after) ?? {}).flatMap((leaf) =>
    /^containers\[\d+\]\.image$/.test(leaf.path) && leaf.before === from && leaf.after === to
      ? [`${podPath}.${leaf.path}`]
      : [],
  );
}

export function podLines(step: Step, ledger: Ledger): Told[] {
  const { op, name, before, after } = step;
  const [old, now] = [podSpec(before), podSpec(after)];
  if (op === "delete" || !now) return [];
  const tolerations = (spec: Inputs | undefined) => items(spec?.tolerations).map((entry) => JSON.stringify(entry));
  const [toleratedBefore, toleratedAfter] = [tolerations(old), tolerations(now)];
  const tolerated = [
    ...toleratedAfter
      .filter((entry) => !toleratedBefore.includes(entry))
      .map((entry) => known(`DaemonSet ${code(name)} tolerates ${code(entry)}.`)),
    ...toleratedBefore
      .filter((entry) => !toleratedAfter.includes(entry))
      .map((entry) => known(`DaemonSet ${code(name)} no longer tolerates ${code(entry)}.`)),
  ].map((line) => claim(line, step, [`${podPath}.tolerations`]));
  if (!old) return [...tolerated, privileges(step, now), ...containerLines(step, {}, now)];
  return [...tolerated, ...containerLines(step, old, now), ...podChanges(step, old, now, ledger, tolerated.length > 0)];
}

/** Every leaf of the pod: what a pod may do is decided in too many places for a list of those that matter. */
function podChanges(step: Step, old: Inputs, now: Inputs, ledger: Ledger, isTolerated: boolean): Told[] {
  const left = ledger.rest(step).map(({ path }) => path);
  const fields = fieldsOf[daemonSetType];
  return treeDifferences(old, now)
    .filter(({ path }) => fields?.test(`${podPath}.${path}`) && !(isTolerated && isBelow(path, "tolerations")))
    .filter(({ path }) => left.some((each) => isBelow(each, `${podPath}.${path}`)))
    .map((leaf) => claim(changeLine(`DaemonSet ${code(step.name)}: pod's `, leaf), step, [`${podPath}.${leaf.path}`]));
}

const podSpec = (inputs: Inputs | undefined): Inputs | undefined =>
  (inputs as { spec?: { template?: { spec?: Inputs } } } | undefined)?.spec?.template?.spec;

interface Container {
  name?: string;
  image?: unknown;
  command?: unknown;
  args?: unknown;
  securityContext?: { privileged?: boolean; capabilities?: { add?: string[] } };
}

/** What runs in each container that is new; the rest of it is listed with the other differences. */
function containerLines(step: Step, old: Inputs, now: Inputs): Told[] {
  return ["initContainers", "containers"].flatMap((kind) =>
    items<Container>(now[kind]).flatMap((container, index) => {
      const isNew = index >= items(old[kind]).length;
      if (!isNew || typeof container !== "object" || container === null) return [];
      const { name, image, command, args } = container;
      const runs = `runs ${command === undefined ? "what the image says" : code(command)}${args === undefined ? "" : ` with ${code(args)}`}`;
      const line = known(`DaemonSet ${code(step.name)}: container ${code(name)} is ${code(image)} and ${runs}.`);
      const paths = ["name", "image", "command", "args"].filter(
        (key) => code((container as Inputs)[key]).length < longestValue,
      );
      const place = `${podPath}.${kind}[${index}]`;
      const hooks = leafDifferences(undefined, container).filter(({ path }) =>
        /^(\w+Probe|lifecycle\.\w+)\.exec\./.test(path),
      );
      return [
        claim(
          line,
          step,
          paths.map((key) => `${place}.${key}`),
        ),
        // Shown whole with the other differences, too.
        ...hooks.map(({ path, after }) =>
          known(`DaemonSet ${code(step.name)}: container ${code(name)} also runs ${code(after)} (${code(path)}).`),
        ),
      ];
    }),
  );
}

function privileges(step: Step, spec: Inputs): Told {
  const containers = [...items<Container>(spec.initContainers), ...items<Container>(spec.containers)];
  const paths = items<{ hostPath?: { path: string } }>(spec.volumes).flatMap(({ hostPath }) => hostPath?.path ?? []);
  const words = [
    ...containers.flatMap((container) => {
      if (typeof container !== "object" || container === null) return [`containers ${container}`];
      const { privileged = false, capabilities } = container.securityContext ?? {};
      const which = containers.length > 1 ? `${container.name}: ` : "";
      const added = items(capabilities?.add ?? "the runtime's own").join(", ");
      return [`${which}${privileged ? "privileged" : "not privileged"}`, `${which}capabilities ${added}`];
    }),
    ...["hostPID", "hostNetwork", "hostIPC"].filter((key) => spec[key] === true),
    ...paths.map((path) => `the node's ${path}`),
  ];
  const line = known(`DaemonSet ${code(step.name)} is new; its pods have: ${words.map(code).join("; ")}.`);
  return step.op === "create" ? claim(line, step, ["(create)"]) : line;
}
