import { writeFile } from "node:fs/promises";
import { canonical, type Source } from "../../review/approval/form.ts";
import { sourceOf } from "../../review/forge/source.ts";
import { readPreview } from "../../review/preview/preview.ts";
import { plannedNodes, plannedSpecs } from "../../review/summary/groups.ts";
import { renderMarkdown } from "../../review/summary/markdown.ts";
import { summarize } from "../../review/summary/summary.ts";
import { list } from "../../review/text.ts";
import { sha256 } from "../../runtime/canonical.ts";
import { exitCodes } from "../process/exit-codes.ts";
import { approvedIn, readBytes, readText } from "./files.ts";
import { planFleets } from "./fleet.ts";

interface Files {
  preview: string;
  bundles?: string | undefined;
  canonical?: string | undefined;
  plan?: string | undefined;
  approved?: string | undefined;
}

/** Prints the summary; returns the exit code. */
export async function summary(files: Files): Promise<number> {
  const preview = readPreview(await readText(files.preview));
  const fleets =
    files.bundles === undefined ? [] : await planFleets(plannedSpecs(preview), files.bundles, plannedNodes(preview));
  const made = summarize(preview, fleets);
  const source = await sourceWith(files);
  const form = canonical(made, source);
  if (files.canonical !== undefined) await writeFile(files.canonical, form);
  process.stdout.write(renderMarkdown(made) + (source === undefined ? "" : originOf(source, form)));
  return made.errors.length > 0 ? exitCodes.failed : exitCodes.done;
}

/** The job's own, with the plan and the approved request. */
async function sourceWith(files: Files): Promise<Source | undefined> {
  const source = sourceOf(process.env);
  if (source === undefined) return undefined;
  const request = files.approved === undefined ? undefined : (await approvedIn(files.approved)).source?.request;
  return {
    ...source,
    ...(request !== undefined && { request }),
    ...(files.plan !== undefined && { plan: sha256(await readBytes(files.plan)) }),
  };
}

/** The comment's last line: which run said so, and the digests by which what it said can be found again. */
function originOf({ commit, run, attempt, plan }: Source, form: string): string {
  const digests = [`this form has SHA-256 \`${sha256(form)}\``, ...(plan ? [`the plan \`${plan}\``] : [])];
  return `\n<sub>Of commit ${commit}, by run ${run} (${attempt}); ${list(digests)}.</sub>\n`;
}
