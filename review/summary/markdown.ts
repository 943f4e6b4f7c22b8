import type { FleetPlan } from "../fleet-plan/plan.ts";
import { fleetSentence, noticeSentence, outcomeSentence } from "../fleet-plan/sentences.ts";
import { code, count, list, word } from "../text.ts";
import { bounded } from "./difference-block.ts";
import type { Line } from "./line.ts";
import type { Operation } from "./operations.ts";
import type { Summary } from "./summary.ts";

/** GitHub takes 65 536 characters in a comment; GitLab takes more. */
const longest = 60_000;

/** Finds the comment of an earlier run, so that it is updated instead of repeated. */
const marker = (stack: string): string => `<!-- contrast-runtime review of ${stack.replaceAll(/[^\w.-]/g, "_")} -->`;

/** Lines of a section and lines of a difference, at most; the next where a comment would be too long. */
const allowed = [
  { lines: Number.POSITIVE_INFINITY, block: Number.POSITIVE_INFINITY },
  { lines: 300, block: 40 },
  { lines: 100, block: 15 },
  { lines: 30, block: 6 },
  { lines: 10, block: 3 },
];

type Allowed = (typeof allowed)[number];

/** Where a comment cannot hold everything, these come first. */
const firstSections = ["Not explained here", "Security", "Commands"];

/** What a summary is of: where "known" comes from, what is counted, and where all of it is if a comment is too short. */
const words = {
  preview: {
    diff: "in the engine's diff",
    counted: (number: number) => `${count(number, "operation")} of the engine`,
    stored: "the stored summary (`--canonical`; in the workflows the artifact of this run)",
    hasAll: "The stored summary has all of them.",
  },
  manifests: {
    diff: "in the manifests' diff",
    counted: (number: number) => `${count(number, "change")} of objects and components`,
    stored: "the manifests' own diff",
    hasAll: "The manifests' own diff has all of them.",
  },
};

/** The comment of a pull request. */
export function renderMarkdown(summary: Summary): string {
  const { stack, sections, operations, errors, warnings, fleets, of } = summary;
  const { diff, counted, stored, hasAll } = words[of];
  const head = [marker(stack), `## What this does to stack ${code(stack)}`];
  if (errors.length > 0) {
    const failed = "**The preview failed.** Nothing can be said before it works:";
    return `${cut([...head, failed, ...errors.map(message)], stored)}\n`;
  }
  const legend =
    sections.length > 0
      ? [`*known*: ${diff}. *predicted*: follows from it. *unknown*: neither says.`]
      : ["Nothing changes."];
  const warned = warnings.length > 0 ? ["### The engine warns", ...warnings.map(message)] : [];
  const rest = [...fleets.map(fleetSection), ...warned];
  const whole = [...head, ...legend, ...sections.map((each) => section(each, allowed[0] as Allowed, hasAll)), ...rest];
  const table = operations.length === 0 ? [] : [operationTable(operations, counted(operations.length))];
  const number = `${counted(operations.length)}, too many for a comment: ${stored} has them.`;
  if (lengthOf([...whole, ...table]) <= longest) return `${[...whole, ...table].join("\n\n")}\n`;
  if (lengthOf([...whole, number]) <= longest) return `${[...whole, number].join("\n\n")}\n`;
  // A section that is long must not push others out, least of all those that concern security.
  const rank = ({ title }: { title: string }) =>
    firstSections.includes(title) ? firstSections.indexOf(title) : firstSections.length;
  const ranked = sections.toSorted((a, b) => rank(a) - rank(b));
  const texts = allowed.slice(1).map((most) => {
    const short = ranked.filter((each) => isShortened(each, most)).map(({ title }) => title);
    const left =
      short.length > 0
        ? [`**Too long for a comment.** Not everything is shown of: ${list(short)}. It is in ${stored}.`]
        : [];
    return [...head, ...left, ...legend, ...ranked.map((each) => section(each, most, hasAll)), ...rest];
  });
  const text = texts.find((parts) => lengthOf([...parts, number]) <= longest) ?? texts.at(-1) ?? [];
  return `${cut([...text, number], stored)}\n`;
}

const lengthOf = (parts: string[]): number => parts.reduce((sum, { length }) => sum + length + 2, 1);

const isShortened = ({ lines }: Summary["sections"][number], most: Allowed): boolean =>
  lines.length > most.lines || lines.some(({ block = "" }) => block.split("\n").length > most.block);

function section({ title, lines }: Summary["sections"][number], most: Allowed, hasAll: string): string {
  const rest = lines.length - most.lines;
  const more = rest > 0 ? [`- … and ${count(rest, "line")} more. ${hasAll}`] : [];
  return [`### ${title}\n`, ...lines.slice(0, most.lines).map((line) => item(line, most.block)), ...more]
    .join("\n")
    .trimEnd();
}

function item({ certainty, text, block }: Line, most: number): string {
  const line = `- *${certainty}* — ${text}`;
  return block === undefined ? line : `${line}\n\n${fenced(bounded(block.split("\n"), most), "diff", "  ")}\n`;
}

/** Whole parts, as many as fit; what is left out is named by its heading. */
function cut(parts: string[], stored: string): string {
  const kept: string[] = [];
  const left: string[] = [];
  const note = 1_000;
  for (const part of parts) {
    if (lengthOf([...kept, part]) <= longest - note) kept.push(part);
    else left.push(/^### ([^\n]{1,60})/.exec(part)?.[1] ?? "a part without a heading");
  }
  if (left.length === 0) return kept.join("\n\n");
  const names = [...new Set(left)];
  const named = `${names.slice(0, 10).join(", ")}${names.length > 10 ? ` and ${names.length - 10} more` : ""}`;
  return [...kept, `**Cut here.** Left out: ${named}. All of it is in ${stored}.`].join("\n\n");
}

/** Of a message that is long, the start: it says what went wrong. */
function message(text: string): string {
  const most = 5_000;
  return fenced(text.length > most ? `${text.slice(0, most)}\n… ${text.length - most} more characters` : text, "", "");
}

/** Longer than any row of backticks in it, so that nothing in it ends it. */
function fenced(text: string, language: string, indent: string): string {
  const longestRow = Math.max(2, ...[...text.matchAll(/`+/g)].map(([row]) => row.length));
  const fence = "`".repeat(longestRow + 1);
  return [`${fence}${language}`, ...text.split(/\r?\n|\r/), fence].map((line) => `${indent}${line}`).join("\n");
}

function fleetSection(fleet: FleetPlan): string {
  const rows = fleet.outcomes.map((outcome) => `- *predicted* — ${outcomeSentence(outcome)}`);
  rows.push(...fleet.notices.map((notice) => `- *predicted* — ${noticeSentence(notice)}`));
  return `### Fleet plan of group ${code(fleet.group)}\n\n${fleetSentence(fleet)}\n\n${rows.join("\n")}`;
}

function operationTable(operations: Operation[], title: string): string {
  const rows = operations.map(
    ({ op, type, name, changed }) =>
      `| ${word(op).replaceAll("|", "\\|")} | ${cell(type)} | ${cell(name)} | ${changed.map(cell).join(", ")} |`,
  );
  return [
    `<details><summary>${title}</summary>`,
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
