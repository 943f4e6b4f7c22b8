import * as z from "zod";
import { Refusal } from "../../runtime/refusal.ts";
import { type Approved, readApproved, type Source } from "../approval/form.ts";
import { ask, askAll, type Forge, fetchFile } from "./forge.ts";
import { agreed, only, type Request, type RequestsOf, type StoredForm, usedPlan, type Voice } from "./request.ts";

const previewJob = "preview";

const memberSchema = z.object({ username: z.string(), id: z.number() });

const mergeSchema = z.object({
  iid: z.number(),
  state: z.string(),
  target_branch: z.string(),
  sha: z.string(),
  merge_commit_sha: z.string().nullish(),
  squash_commit_sha: z.string().nullish(),
  author: memberSchema.nullable(),
});

async function mergedBy(forge: Forge, merged: { commit: string; branch: string }): Promise<Request> {
  const all = await askAll(forge, `${forge.project}/repository/commits/${merged.commit}/merge_requests`, mergeSchema);
  const { iid, sha, author } = only(
    all.filter(
      ({ state, target_branch, sha: head, merge_commit_sha, squash_commit_sha }) =>
        state === "merged" &&
        target_branch === merged.branch &&
        (merge_commit_sha ?? squash_commit_sha ?? head) === merged.commit,
    ),
    merged,
  );
  return { number: iid, head: sha, writers: author ? [author.username] : [] };
}

/** Of a commit GitLab knows a name and an address that anybody can choose, but no account. */
async function writersOf(forge: Forge, number: number): Promise<string[]> {
  const { author } = await ask(forge, `${forge.project}/merge_requests/${number}`, mergeSchema);
  return author ? [author.username] : [];
}

async function voicesOn(forge: Forge, { number }: Request): Promise<Voice[]> {
  const answer = z.object({ approved_by: z.array(z.object({ user: memberSchema, approved_at: z.string() })) });
  const { approved_by } = await ask(forge, `${forge.project}/merge_requests/${number}/approvals`, answer);
  return approved_by.map(({ user: { username, id }, approved_at }) => ({
    name: username,
    id,
    at: new Date(approved_at),
    approves: true,
  }));
}

async function previewOf(forge: Forge, request: Request, stored: string): Promise<StoredForm> {
  const pipeline = z.object({ id: z.number(), sha: z.string(), status: z.string(), source: z.string() });
  const all = await askAll(forge, `${forge.project}/merge_requests/${request.number}/pipelines`, pipeline);
  const job = z.object({ id: z.number(), name: z.string(), status: z.string(), finished_at: z.string().nullable() });
  const forms: (StoredForm & { approved: Approved })[] = [];
  for (const { id, status, source } of all) {
    if (status !== "success" || source !== "merge_request_event") continue;
    for (const each of await askAll(forge, `${forge.project}/pipelines/${id}/jobs`, job)) {
      // Several stacks are one job with a list behind its name: "preview: [production]".
      if (each.name.split(":")[0] !== previewJob || each.status !== "success" || !each.finished_at) continue;
      const place = `${forge.project}/jobs/${each.id}/artifacts/${stored.split("/").map(encodeURIComponent).join("/")}`;
      const form = await artifactOf(forge, place);
      if (form === undefined) continue;
      const approved = readApproved(form, `${stored} of job ${each.id}`);
      const { request: number, commit, attempt } = approved.source ?? {};
      if (number === request.number && commit === request.head && attempt === `${each.id}`)
        forms.push({ form, at: new Date(each.finished_at), approved });
    }
  }
  return agreed(forge, request, forms);
}

async function mayWrite(forge: Forge, { id }: { id: number }): Promise<boolean> {
  const place = `${forge.project}/members/all/${id}`;
  return (await ask(forge, place, z.object({ access_level: z.number() }))).access_level >= 30; // Developer
}

/** The previews of other stacks have no such file. */
async function artifactOf(forge: Forge, place: string): Promise<string | undefined> {
  try {
    return (await fetchFile(forge, place)).toString("utf8");
  } catch (error) {
    if (error instanceof Refusal && error.message.includes(" answered 404:")) return undefined;
    throw error;
  }
}

/** Jobs that are run again get a higher number: between the plan's and this one's there is none that began to update. */
async function refuseUsedPlan(forge: Forge, { attempt }: Source): Promise<void> {
  const [own, name] = [Number(forge.need("CI_JOB_ID")), forge.need("CI_JOB_NAME")];
  const job = z.object({ id: z.number(), name: z.string(), started_at: z.string().nullable() });
  const place = `${forge.project}/pipelines/${forge.need("CI_PIPELINE_ID")}/jobs?include_retried=true`;
  const earlier = (await askAll(forge, place, job)).find(
    (each) => each.name === name && each.id !== own && each.id > Number(attempt) && each.started_at !== null,
  );
  if (earlier) throw usedPlan(`Job ${earlier.id} began to update by this plan`, "Run the plan's job again");
}

/** Of a manual job it is who started it; GET /job answers that to the job's own token alone. */
async function releasersOf(forge: Forge): Promise<string[]> {
  const own = { ...forge, headers: { "job-token": forge.need("CI_JOB_TOKEN") } };
  return [(await ask(own, "/job", z.object({ user: memberSchema }))).user.username];
}

export const gitlab: RequestsOf = {
  mergedBy,
  previewOf,
  voicesOn,
  mayWrite,
  writersOf,
  refuseUsedPlan,
  releasersOf,
};
