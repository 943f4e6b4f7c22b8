import { writeFile } from "node:fs/promises";
import { approvalOf, releaseOf } from "../../review/forge/approval.ts";
import { forgeOf } from "../../review/forge/forge.ts";
import { list } from "../../review/text.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { approvedIn } from "./files.ts";

/** Writes the approved form to `file`. */
export async function approval(stored: string, file: string): Promise<void> {
  const forge = forgeOf(process.env);
  const [commit, branch] =
    forge.kind === "github" ? ["GITHUB_SHA", "GITHUB_REF_NAME"] : ["CI_COMMIT_SHA", "CI_COMMIT_BRANCH"];
  const merged = { commit: forge.need(commit), branch: forge.need(branch) };
  const { request, head, by, form } = await approvalOf(forge, merged, stored);
  await writeFile(file, form);
  console.log(`Request ${request} was approved at ${head} by ${list(by)}.`);
}

export async function release(file: string, environment: string): Promise<void> {
  const { source } = await approvedIn(file);
  const request = source?.request;
  if (source === undefined || request === undefined) {
    throw new Refusal(
      "bad-approval",
      `${file} names no request: give the form that "review summary --approved" wrote.`,
    );
  }
  console.log(`Released by ${list(await releaseOf(forgeOf(process.env), { ...source, request }, environment))}.`);
}
