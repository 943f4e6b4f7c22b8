import { type FleetPlan, fleetSentence, outcomeSentence } from "./fleet-plan.ts";
import { code, count, type Line } from "./lines.ts";
import type { Operation, Summary } from "./summary.ts";

/** GitHub takes 65 536 characters in a comment; GitLab takes more. */
const longest = 60_000;

/** Finds the comment of an earlier run, so that it is updated instead of repeated. */
export const marker = (stack: string): string =>
  `<!-- contrast-runtime review of ${stack.replaceAll(/[^\w.-]/g, "_")} -->`;

/** Lines of a section, at most; the next where a comment would be too long. */
const allowed = [Number.POSITIVE_INFINITY, 300, 100, 30, 10];

/** The comment of a pull request. */
export function renderMarkdown(summary: Summary): string {
  const { stack, sections, operations, errors, warnings, fleets } = summary;
  const head = [marker(stack), `## What this does to stack ${code(stack)}`];
  if (errors.length > 0) {
    const failed = "**The preview failed.** Nothing can be said before it works:";
    return `${cut([...head, failed, ...errors.map(fenced)].join("\n\n"))}\n`;
  }
  const nothing = operations.length === 0 ? "Nothing changes." : "Nothing changes that this summary explains.";
  const legend =
    sections.length > 0
      ? ["*known*: in the engine's diff. *predicted*: follows from it. *unknown*: neither says."]
      : [];
  const warned = warnings.length > 0 ? ["### The engine warns", ...warnings.map(fenced)] : [];
  const textOf = (most: number) => {
    const body = sections.length === 0 ? [nothing] : sections.map((each) => section(each, most));
    return [...head, ...legend, ...body, ...fleets.map(fleetSection), ...warned].join("\n\n");
  };
  const texts = allowed.map(textOf);
  // A section that is long must not push others out: what concerns security comes late.
  const text = texts.find(({ length }) => length <= longest) ?? texts.at(-1) ?? "";
  if (operations.length === 0) return `${cut(text)}\n`;
  const table = operationTable(operations);
  const number = `${count(operations.length, "operation")} of the engine, too many for a comment: the stored summary has them.`;
  return `${text.length + table.length <= longest ? `${text}\n\n${table}` : `${cut(text)}\n\n${number}`}\n`;
}

function section({ title, lines }: Summary["sections"][number], most: number): string {
  const rest = lines.length - most;
  const more = rest > 0 ? [`- … and ${count(rest, "line")} more. The stored summary has all of them.`] : [];
  return [`### ${title}\n`, ...lines.slice(0, most).map(item), ...more].join("\n");
}

const item = ({ certainty, text }: Line): string => `- *${certainty}* — ${text}`;

const cut = (text: string): string =>
  text.length <= longest
    ? text
    : `${text.slice(0, text.lastIndexOf("\n", longest))}\n\n*Cut here; the stored summary has all of it.*`;

/** Of a message that is long, the start: it says what went wrong. */
const fenced = (message: string): string => `\`\`\`\n${message.replaceAll("```", "'''").slice(0, 5_000)}\n\`\`\``;

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
