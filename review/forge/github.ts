import * as z from "zod";
import { sha256 } from "../../runtime/canonical.ts";
import { type Approved, readApproved, type Source } from "../approval/form.ts";
import { ask, askAll, type Forge, fetchFile } from "./forge.ts";
import {
  agreed,
  only,
  type Request,
  type RequestsOf,
  refused,
  type StoredForm,
  usedPlan,
  type Voice,
} from "./request.ts";
import { onlyFile } from "./zip.ts";

/** How the pipelines call what previews store. */
const workflow = ".github/workflows/preview.yml";

const formName = "approved.json";

const userSchema = z.object({ login: z.string(), id: z.number() });

const pullSchema = z.object({
  number: z.number(),
  merged_at: z.string().nullable(),
  merge_commit_sha: z.string().nullable(),
  user: userSchema.nullable(),
  head: z.object({ sha: z.string() }),
  base: z.object({ ref: z.string(), repo: z.object({ full_name: z.string() }) }),
});

async function mergedBy(forge: Forge, merged: { commit: string; branch: string }): Promise<Request> {
  const all = await askAll(forge, `${forge.project}/commits/${merged.commit}/pulls`, pullSchema);
  const { number, head } = only(
    all.filter(
      ({ merged_at, merge_commit_sha, base }) =>
        merged_at !== null &&
        merge_commit_sha === merged.commit &&
        base.ref === merged.branch &&
        `/repos/${base.repo.full_name}` === forge.project,
    ),
    merged,
  );
  return { number, head: head.sha, writers: await writersOf(forge, number) };
}

async function writersOf(forge: Forge, number: number): Promise<string[]> {
  const place = `${forge.project}/pulls/${number}`;
  const commit = z.object({ author: z.unknown().optional(), committer: z.unknown().optional() });
  const commits = await askAll(forge, `${place}/commits`, commit);
  const people = [
    (await ask(forge, place, pullSchema)).user,
    ...commits.flatMap((each) => [each.author, each.committer]),
  ];
  return people.flatMap((person) => userSchema.safeParse(person).data?.login ?? []);
}

async function voicesOn(forge: Forge, { number, head }: Request): Promise<Voice[]> {
  const review = z.object({
    user: userSchema.extend({ type: z.string() }).nullable(),
    state: z.string(),
    commit_id: z.string().nullable(),
    submitted_at: z.string().nullish(),
  });
  const all = await askAll(forge, `${forge.project}/pulls/${number}/reviews`, review);
  // In the order of time: a person's last word is what counts, and a comment takes nothing back.
  const words = all.flatMap(({ user: by, ...said }) =>
    by?.type === "User" && said.state !== "COMMENTED" && said.state !== "PENDING" ? [{ by, ...said }] : [],
  );
  const last = new Map(words.map((each) => [each.by.login, each]));
  const voices: Voice[] = [];
  for (const { by, state, commit_id, submitted_at } of last.values()) {
    if (!submitted_at) continue;
    const voice = { name: by.login, id: by.id, at: new Date(submitted_at) };
    if (state === "APPROVED" && commit_id === head) voices.push({ ...voice, approves: true });
    if (state === "CHANGES_REQUESTED" && (await mayWrite(forge, { name: by.login })))
      voices.push({ ...voice, approves: false });
  }
  return voices;
}

async function mayWrite(forge: Forge, { name }: { name: string }): Promise<boolean> {
  const place = `${forge.project}/collaborators/${encodeURIComponent(name)}/permission`;
  const { permission } = await ask(forge, place, z.object({ permission: z.string() }));
  return ["admin", "write"].includes(permission);
}

/** GitHub says of a run which commit it is of, but not for which of several pullSchema requests with that commit: the form does. */
async function previewOf(forge: Forge, request: Request, stored: string): Promise<StoredForm> {
  const run = z.object({ id: z.number(), path: z.string(), conclusion: z.string().nullable(), head_sha: z.string() });
  const runs = (
    await askAll(
      forge,
      `${forge.project}/actions/runs?event=pull_request&head_sha=${request.head}`,
      run,
      "workflow_runs",
    )
  ).filter(
    ({ path, conclusion, head_sha }) =>
      path.split("@")[0] === workflow && conclusion === "success" && head_sha === request.head,
  );
  const artifact = z.object({
    id: z.number(),
    name: z.string(),
    expired: z.boolean(),
    created_at: z.string(),
    digest: z.string().nullish(),
  });
  const forms: (StoredForm & { approved: Approved })[] = [];
  for (const { id } of runs) {
    const place = `${forge.project}/actions/runs/${id}/artifacts?name=${encodeURIComponent(stored)}`;
    for (const each of await askAll(forge, place, artifact, "artifacts")) {
      if (each.name !== stored || each.expired) continue;
      const zip = await fetchFile(forge, `${forge.project}/actions/artifacts/${each.id}/zip`);
      if (each.digest && each.digest !== `sha256:${sha256(zip)}`)
        throw refused(`Artifact ${each.id} is not what was stored.`);
      const form = onlyFile(zip, formName);
      const approved = readApproved(form, `${stored} of run ${id}`);
      const { request: number, commit, run: by } = approved.source ?? {};
      if (number === request.number && commit === request.head && by === `${id}`)
        forms.push({ form, at: new Date(each.created_at), approved });
    }
  }
  return agreed(forge, request, forms);
}

async function releasersOf(forge: Forge, environment: string): Promise<string[]> {
  const release = z.object({
    state: z.string(),
    environments: z.array(z.object({ name: z.string() })),
    user: userSchema,
  });
  const place = `${forge.project}/actions/runs/${forge.need("GITHUB_RUN_ID")}/approvals`;
  return (await ask(forge, place, z.array(release)))
    .filter(({ state, environments }) => state === "approved" && environments.some(({ name }) => name === environment))
    .map((each) => each.user.login);
}

/** "Re-run failed jobs" counts the attempt up, and the plan stays that of the attempt before. */
async function refuseUsedPlan(forge: Forge, { attempt }: Source): Promise<void> {
  const now = forge.need("GITHUB_RUN_ATTEMPT");
  if (now !== attempt) {
    throw usedPlan(`The plan is of attempt ${attempt}, this is attempt ${now}`, "Re-run all jobs");
  }
}

export const github: RequestsOf = {
  mergedBy,
  previewOf,
  voicesOn,
  mayWrite,
  writersOf,
  refuseUsedPlan,
  releasersOf,
};
