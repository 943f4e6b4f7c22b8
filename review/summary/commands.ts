import { bareMetalNodesCard, isChild, localClusterCard, nodeInstallerCard } from "../../runtime/cards.ts";
import { type StackVerb, stackVerb } from "../../runtime/stack-commands.ts";
import type { Inputs } from "../preview/inputs.ts";
import type { Preview } from "../preview/preview.ts";
import type { Step } from "../preview/step.ts";
import { code, count, few, word } from "../text.ts";
import { differenceBlock } from "./difference-block.ts";
import type { Ledger } from "./ledger.ts";
import { claim, known, type Told, unknown } from "./line.ts";

/**
 * What is run by the update itself: on the machine that it runs on, with its credentials, or on hosts by SSH. The texts are
 * shown as they are, or as they change; hosts with the same text have one line.
 */
export function commandLines({ steps }: Preview, ledger: Ledger): Told[] {
  const commands = steps.filter(({ type }) => type === local || type === remote);
  const alike = Map.groupBy(commands, (step) => {
    const { verb, ran } = whatRuns(step);
    const block = blockOf(step, ledger);
    // Of a local command each is a line of its own: it says what runs.
    return JSON.stringify([step.type, step.op, verb, ran, block, isOurs(step), step.type === local && step.urn]);
  });
  return [...alike.values()].map((same) => line(same, ledger));
}

const local = "command:local:Command";

const remote = "command:remote:Command";

function line(steps: Step[], ledger: Ledger): Told {
  const [first] = steps as [Step];
  const { type, op } = first;
  const { verb, ran } = whatRuns(first);
  const block = blockOf(first, ledger);
  const names = few(steps.map(({ name }) => name).sort(), 20);
  const where =
    type === local
      ? `On the machine of the update, with its credentials, ${names} runs`
      : `On ${count(steps.length, "host")}, SSH runs ${names}`;
  const again = op === "update" ? " again" : "";
  const what =
    ran === undefined
      ? `${names} (${code(type)}): ${word(op)}, which runs nothing`
      : `${where}${again} (${verb})${type === local ? `: ${code(ran)}` : ""}`;
  const text = isOurs(first)
    ? known(`${what}.`, block)
    : unknown(`${what}. What this does is not explained here: it is none of this product's.`, block);
  return steps.reduce<Told>(
    (told, step) =>
      claim(
        told,
        step,
        shownOf(step, ledger).map(({ path }) => path),
      ),
    text,
  );
}

/** Fields whose meaning is in the provider's documentation; any other stays unexplained. */
const fields =
  /^(\((create|delete|replace|import)\)|(create|update|delete|stdin|logging|dir|addPreviousOutputInEnv)|(environment|connection|interpreter|triggers)([.[].*)?)$/;

const shownOf = (step: Step, ledger: Ledger) =>
  ledger.changes(step).filter(({ path }) => fields.test(path) || path === "");

function blockOf(step: Step, ledger: Ledger): string {
  const gone = step.op === "delete" || step.op === "replace" ? goingOf(step) : undefined;
  const runs = gone === undefined ? [] : [{ path: "delete, which runs now", before: undefined, after: gone }];
  return differenceBlock([...runs, ...shownOf(step, ledger).filter(({ path }) => !path.startsWith("("))]);
}

/** By the provider's rules: a create's text is also an update's that has none, and a replacement deletes first. */
function whatRuns(step: Step): { verb: string; ran: unknown } {
  const { op, after } = step;
  const of = (inputs: Inputs | undefined, key: string) => inputs?.[key];
  switch (op) {
    case "delete":
      return { verb: "delete", ran: goingOf(step) };
    case "update":
      return of(after, "update") === undefined
        ? { verb: "create", ran: of(after, "create") }
        : { verb: "update", ran: of(after, "update") };
    case "replace": {
      const [gone, made] = [goingOf(step), of(after, "create")];
      return gone === undefined ? { verb: "create", ran: made } : { verb: "delete, then create", ran: [gone, made] };
    }
    default:
      return { verb: word(op), ran: of(after, "create") };
  }
}

/** What it runs when it goes: nothing, where the stack only lets go of it. */
const goingOf = ({ before, options }: Step): unknown =>
  options.before.retainOnDelete === true ? undefined : before?.delete;

/** By the components that it belongs to and by its own text; a name says nothing. */
function isOurs({ urn, type, before, after }: Step): boolean {
  if (type === remote) return isChild(urn, bareMetalNodesCard);
  const hasNoParent = urn.split("::")[2] === type;
  const verbs = [before, after].flatMap((inputs) =>
    [inputs?.create, inputs?.update, inputs?.delete]
      .filter((text) => text !== undefined)
      .map((text) => (typeof text === "string" ? stackVerb(text, inputs?.interpreter) : undefined)),
  );
  const settings = [before, after].flatMap((inputs) => Object.keys((inputs?.environment as object | undefined) ?? {}));
  const elsewhere = [before, after].some((inputs) => inputs?.dir !== undefined);
  return (
    !elsewhere &&
    settings.every((name) => variables.has(name)) &&
    verbs.every((verb) => isOwnVerb(verb, hasNoParent)) &&
    (hasNoParent || [nodeInstallerCard, localClusterCard, bareMetalNodesCard].some((card) => isChild(urn, card)))
  );
}

/** Only the push of an image that was built here has no parent. */
const isOwnVerb = (verb: StackVerb | undefined, hasNoParent: boolean): boolean =>
  verb !== undefined && (verb === "image push") === hasNoParent;

const variables = new Set([
  ...[
    "INSTALLER_IMAGE",
    "INSTALLER_NODES",
    "INSTALLER_REVISION",
    "KUBECONFIG_CONTENT",
    "IMAGE_DIGEST",
    "HOST_COMMANDS",
  ],
]);
