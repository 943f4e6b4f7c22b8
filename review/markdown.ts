import { type FleetPlan, fleetSentence, outcomeSentence } from "./fleet-plan.ts";
import { code, count, type Line } from "./lines.ts";
import type { Operation, Summary } from "./summary.ts";

/** GitHub takes 65 536 characters in a comment; GitLab takes more. */
const longest = 60_000;

/** Finds the comment of an earlier run, so that it is updated instead of repeated. */
export const marker = (stack: string): string =>
  `<!-- contrast-runtime review of ${stack.replaceAll(/[^\w.-]/g, "_")} -->`;

/** The comment of a pull request. */
export function renderMarkdown(summary: Summary): string {
  const { stack, sections, operations, errors, fleets } = summary;
  const head = [marker(stack), `## What this does to stack ${code(stack)}`];
  if (errors.length > 0)
    return [...head, "**The preview failed.** Nothing can be said before it works:", ...errors.map(fenced), ""].join(
      "\n\n",
    );
  const body =
    sections.length === 0
      ? [operations.length === 0 ? "Nothing changes." : "Nothing changes that this summary explains."]
      : sections.map(({ title, lines }) => `### ${title}\n\n${lines.map(item).join("\n")}`);
  const legend =
    sections.length > 0
      ? ["*known*: in the engine's diff. *predicted*: follows from it. *unknown*: neither says."]
      : [];
  const text = [...head, ...legend, ...body, ...fleets.map(fleetSection)].join("\n\n");
  const details = operations.length > 0 ? `\n\n${operationTable(operations)}` : "";
  return `${text.length + details.length <= longest ? text + details : cut(text)}\n`;
}

const item = ({ certainty, text }: Line): string => `- *${certainty}* — ${text}`;

const cut = (text: string): string =>
  text.length <= longest
    ? text
    : `${text.slice(0, text.lastIndexOf("\n", longest))}\n\n*Cut here; the stored summary has all of it.*`;

const fenced = (message: string): string => `\`\`\`\n${message.replaceAll("```", "'''")}\n\`\`\``;

function fleetSection(fleet: FleetPlan): string {
  const rows = fleet.outcomes.map((outcome) => `- *predicted* — ${outcomeSentence(outcome)}`);
  return `### Fleet plan of group ${code(fleet.group)}\n\n${fleetSentence(fleet)}\n\n${rows.join("\n")}`;
}

function operationTable(operations: Operation[]): string {
  const rows = operations.map(
    ({ op, type, name, changed }) => `| ${op} | ${cell(type)} | ${cell(name)} | ${changed.map(cell).join(", ")} |`,
  );
  return [
    `<details><summary>${count(operations.length, "operation")} of the engine</summary>`,
    "",
    "| operation | type | name | changes |",
    "| --- | --- | --- | --- |",
    ...rows,
    "",
    "</details>",
  ].join("\n");
}

/** A bar ends a table's cell in a code span, too. */
const cell = (text: string): string => code(text).replaceAll("|", "\\|");
