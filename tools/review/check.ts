import { differences, planDifferences } from "../../review/approval/compare.ts";
import { sourceOf } from "../../review/forge/source.ts";
import { readPreview } from "../../review/preview/preview.ts";
import { summarize } from "../../review/summary/summary.ts";
import { sha256 } from "../../runtime/canonical.ts";
import { exitCodes } from "../process/exit-codes.ts";
import { approvedIn, readBytes, readText } from "./files.ts";

/** Compares a fresh preview with the approved form; returns the exit code. */
export async function checkPreview(approved: string, preview: string): Promise<number> {
  const fresh = async () => summarize(readPreview(await readText(preview)));
  return verdict("preview", differences(await approvedIn(approved), await fresh()));
}

/** Compares an update plan with the form that names it; returns the exit code. */
export async function checkPlan(approved: string, plan: string): Promise<number> {
  const digest = async () => sha256(await readBytes(plan));
  return verdict("plan", planDifferences(await approvedIn(approved), await digest(), sourceOf(process.env)));
}

function verdict(what: "preview" | "plan", found: string[]): number {
  for (const sentence of found) console.error(sentence);
  if (found.length === 0) console.log(`The ${what} is the approved one.`);
  else console.error("Nothing is changed: preview again on a pull request and have that approved.");
  return found.length === 0 ? exitCodes.done : exitCodes.failed;
}
