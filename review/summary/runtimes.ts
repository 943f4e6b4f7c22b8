import * as z from "zod";
import { contrastRuntimeCard } from "../../runtime/cards.ts";
import { platformOf } from "../../runtime/handler.ts";
import { isUnread, newestRead } from "../../runtime/kata-versions.ts";
import { unresolvedHandler } from "../../runtime/names.ts";
import type { RuntimeSpec } from "../../runtime/spec.ts";
import { treeDifferences } from "../preview/differences.ts";
import type { Inputs } from "../preview/inputs.ts";
import type { Preview } from "../preview/preview.ts";
import { typeOf } from "../preview/step.ts";
import { code, exchange, list, quoted } from "../text.ts";
import { type GroupChange, isHandedOver, nodesStayInstalled, type RuntimeCard } from "./groups.ts";
import { claim, known, type Line, predicted, type Told } from "./line.ts";
import { runtimeOf } from "./read-spec.ts";
import { resolutionLines } from "./resolved-names.ts";

/** Handlers and payloads that a group gets, exchanges or loses. */
export function runtimeLines(changes: GroupChange[], preview: Preview): Told[] {
  const { steps } = preview;
  const lines = changes.flatMap((change) => {
    const { group, added, removed, replaced } = change;
    const isReplaced = ({ handler }: RuntimeCard) =>
      replaced.some((pair) => [pair.before.handler, pair.after.handler].includes(handler));
    return [
      ...added.filter((runtime) => !isReplaced(runtime)).map((runtime) => known(`${at(group)} gets ${name(runtime)}.`)),
      ...replaced.flatMap((pair) => replacedLines(change, pair)),
      ...removed
        .filter((runtime) => !isReplaced(runtime))
        .map((runtime) => known(`${at(group)} loses ${name(runtime)}.`)),
      ...(removed.length > 0 ? [retirement(change)] : []),
      ...(isHandedOver(change) ? [handOver(group)] : []),
      ...renamedPayloads(change),
    ];
  });
  const classes = steps.flatMap((step): Told[] => {
    const { type, op, name, before, after } = step;
    if (type !== "kubernetes:node.k8s.io/v1:RuntimeClass") return [];
    if (!before || !after) return secondName(before, after);
    const others = treeDifferences({ ...before, overhead: undefined }, { ...after, overhead: undefined }).map(
      ({ path, before: from, after: to }) =>
        claim(known(`RuntimeClass ${code(name)}: ${code(path)} ${exchange(from, to)}.`), step, [path]),
    );
    if (op === "replace") {
      others.push(claim(known(`RuntimeClass ${code(name)} is deleted and created again.`), step, ["(replace)"]));
      if (after.handler === unresolvedHandler)
        others.push(
          predicted(
            `Running pods that say ${code(name)} find no handler when they start again on their node: roll them, or take another name.`,
          ),
        );
    }
    const [old, now] = [overhead(before), overhead(after)];
    if (old === now) return others;
    return [
      ...others,
      claim(known(`RuntimeClass ${code(name)}: overhead ${exchange(old, now)}.`), step, ["overhead.podFixed"]),
      predicted(`Pods of ${code(name)} that start from then on are charged the new overhead; running ones are not.`),
    ];
  });
  return [...lines, ...kataLines(changes, preview), ...classes, ...resolutionLines(preview)];
}

/** Which Kata new runtimes hold, and which of its known holes the stack puts up with, in those that stay as well. */
function kataLines(changes: GroupChange[], { steps, inputsByUrn }: Preview): Line[] {
  if (steps.length === 0) return [];
  const goes = (urn: string) => steps.some((step) => step.urn === urn && step.after === undefined);
  const components = [...inputsByUrn].filter(([urn]) => typeOf(urn) === contrastRuntimeCard.type && !goes(urn));
  const all = components.flatMap(([, its]) => contrastRuntimeCard.schema.safeParse(its).data?.runtimes ?? []);
  const added = new Set(changes.flatMap((change) => change.added.map(({ handler }) => handler)));
  return all.flatMap(({ handler, kata, kataVersion, acknowledged, closed, settings, weakened }) => {
    const isNew = added.has(handler);
    const holes = acknowledged.map((hole) =>
      known(
        `${code(handler)} ${isNew ? "has" : "still has"} a known hole that the stack acknowledges: ${quoted(hole)}`,
      ),
    );
    const weak = weakened.map((setting) =>
      known(
        `${code(handler)} ${isNew ? "sets" : "still sets"} what weakens its guests, as the stack says: ${quoted(setting)}`,
      ),
    );
    if (!isNew || kata === undefined || kataVersion === undefined || kataVersion === "none") return [...holes, ...weak];
    return [
      known(`${code(handler)} holds Kata ${code(kataVersion)} (${code(kata)}).`),
      ...(isUnread(kataVersion)
        ? [
            known(
              `That is newer than ${newestRead}, the newest whose sources were read here: nobody has looked at which of its keys and defaults decide how confidential guests are.`,
            ),
          ]
        : []),
      ...holes,
      ...weak,
      ...settings.map((setting) => known(`${code(handler)} sets of its Kata: ${quoted(setting)}`)),
      ...(isForDebugging(handler)
        ? [
            known(
              `${code(handler)} is for debugging: Kata logs everything on the host. What is measured is the same as without.`,
            ),
          ]
        : []),
      ...(closed.length > 0
        ? [
            known(
              `Of the known holes of its Kata, ${code(handler)} leaves no way to use these: ${closed.map(quoted).join(" ")}`,
            ),
          ]
        : []),
    ];
  });
}

/** Of a class that is made or goes, the handler matters where it has another name. */
function secondName(before: Inputs | undefined, after: Inputs | undefined): Line[] {
  const made = runtimeClass.safeParse(after ?? before).data;
  if (made === undefined || made.metadata.name === made.handler || made.handler === unresolvedHandler) return [];
  const of = `RuntimeClass ${code(made.metadata.name)}, a further name of ${code(made.handler)},`;
  return after
    ? [known(`${of} is new: pods that say it run with that handler.`)]
    : [known(`${of} goes: no pod that says it starts any more; running ones stay.`)];
}

const runtimeClass = z.object({ handler: z.string(), metadata: z.object({ name: z.string() }) });

const isForDebugging = (handler: string): boolean =>
  /-debug-[0-9a-f]{8}$/.test(handler) && platformOf(handler) !== undefined;

const at = (group: string) => `Group ${code(group)}`;

const name = ({ handler, platform, payload }: RuntimeCard) =>
  `${code(handler)} (platform ${code(platform)}, payload ${code(payload)})`;

function replacedLines({ group, specBefore, specAfter }: GroupChange, pair: GroupChange["replaced"][number]): Line[] {
  const [old, now] = [runtimeOf(specBefore, pair.before.handler), runtimeOf(specAfter, pair.after.handler)];
  const differences = old && now ? differencesOf(old, now) : undefined;
  const payloads = pair.before.payload === pair.after.payload ? "" : `, payload ${code(pair.after.payload)}`;
  return [
    known(
      `${at(group)} exchanges ${name(pair.before)} for ${code(pair.after.handler)}${payloads}` +
        `${differences ? `. What differs: ${list(differences)}` : ""}.`,
    ),
    predicted(
      `Pods say ${code(pair.before.handler)} until they are changed: the new handler takes none of them over. ` +
        "Adding a runtime, moving the workloads and removing the old one are three changes that can each be reviewed.",
    ),
  ];
}

/** What of two runtimes differs, as a reader calls it. */
function differencesOf(old: RuntimeSpec, now: RuntimeSpec): string[] {
  const roles = rolesThatDiffer(old, now);
  const rest = [
    ["the Kata configuration", withoutHandler(old, old.kataConfig) !== withoutHandler(now, now.kataConfig)],
    ["containerd's entry", withoutHandler(old, old.containerd) !== withoutHandler(now, now.containerd)],
  ] as const;
  return [...roles.map((role) => `the ${role}`), ...rest.flatMap(([text, differs]) => (differs ? [text] : []))];
}

function rolesThatDiffer(old: RuntimeSpec, now: RuntimeSpec): string[] {
  const digests = ({ files }: RuntimeSpec, role: string) =>
    JSON.stringify(files.filter((file) => file.role === role).map(({ path, sha256, mode }) => [path, sha256, mode]));
  const roles = [...new Set([...old.files, ...now.files].map(({ role }) => role))].sort();
  return roles.filter((role) => digests(old, role) !== digests(now, role));
}

const withoutHandler = ({ handler }: RuntimeSpec, value: unknown) => JSON.stringify(value).replaceAll(handler, "");

function retirement({ group, before, after }: GroupChange): Line {
  if (before && after === undefined && nodesStayInstalled(before)) {
    const why = before.manifestsOnly
      ? "removed manifests uninstall nothing. Let its nodes finish an empty list of runtimes first"
      : "onDestroy is leave";
    return predicted(`${at(group)} leaves the stack and what is on its nodes stays there: ${why}.`);
  }
  return predicted(
    `On each node of ${code(group)} whatever is no longer listed takes no new pods (its label is removed first) and is uninstalled ` +
      `when no pod uses it. ${after?.manifestsOnly ? "Nothing waits for that" : "While pods do, the update fails and names them"}.`,
  );
}

const handOver = (group: string): Line =>
  predicted(
    `The update uninstalls what is on the nodes of ${code(group)}, as it is the last one that waits for them; whatever applies the ` +
      "manifests installs it again. While pods use it, the update fails and names them.",
  );

function renamedPayloads({ group, before, after }: GroupChange): Line[] {
  return (after?.runtimes ?? []).flatMap(({ handler, payload }) => {
    const old = before?.runtimes.find((runtime) => runtime.handler === handler);
    if (old === undefined || old.payload === payload) return [];
    return [
      known(`${at(group)}: the payload of ${code(handler)} is called ${code(payload)} now, its files are the same.`),
    ];
  });
}

const overhead = (inputs: Inputs | undefined): string =>
  JSON.stringify((inputs as { overhead?: { podFixed?: unknown } } | undefined)?.overhead?.podFixed ?? {});
