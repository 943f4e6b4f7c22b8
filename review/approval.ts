import { z } from "zod";
import { canonicalJson, sha256 } from "../runtime/canonical.ts";
import { Refusal } from "../runtime/refusal.ts";
import { type Approved, readApproved } from "./check.ts";
import { ask, askAll, type Forge, fetchFile } from "./forge.ts";
import { code, count, list } from "./lines.ts";
import type { Source } from "./source.ts";
import { onlyFile } from "./zip.ts";

/** What a forge says of the request that a commit merged. */
export interface Approval {
  request: number;
  /** Its last commit, which is what was reviewed. */
  head: string;
  /** Who approved that commit after its preview was stored. */
  by: string[];
  /** The canonical form that its preview stored. */
  form: string;
}

/** How the pipelines call what previews store. */
const workflow = ".github/workflows/preview.yml";
const previewJob = "preview";
const formName = "approved.json";

const refused = (sentence: string): Refusal => new Refusal("not-approved", sentence);

/**
 * The approval of the request that merged a commit into a branch. It counts if it is of the request's last commit, by
 * somebody who may write, did not write any of it as far as the forge names the authors, and said so after the preview was
 * stored.
 *
 * @param stored where previews keep the form of this stack: on GitHub an artifact's name, on GitLab a path among a job's artifacts
 * @throws Refusal that says what is missing
 */
export async function approvalOf(
  forge: Forge,
  merged: { commit: string; branch: string },
  stored: string,
): Promise<Approval> {
  const request = await (forge.kind === "github" ? pullRequest : mergeRequest)(forge, merged);
  const preview = await (forge.kind === "github" ? previewOnGitHub : previewOnGitLab)(forge, request, stored);
  const voices = await (forge.kind === "github" ? reviews : approvals)(forge, request);
  const others = voices.filter(({ name }) => !request.writers.includes(name));
  const objection = others.find(({ approves }) => !approves);
  if (objection) throw refused(`${code(objection.name)} asks for changes of ${named(forge, request)}.`);
  const early = others.filter(({ at }) => at <= preview.at);
  const late = others.filter(({ at }) => at > preview.at);
  const by: string[] = [];
  for (const { name, id } of late) if (await mayWrite(forge, name, id)) by.push(name);
  if (by.length > 0) return { request: request.number, head: request.head, by, form: preview.form };
  const why =
    early.length > 0
      ? `${list(early.map(({ name }) => code(name)))} approved before its preview of ${preview.at.toISOString()} was stored`
      : late.length > 0
        ? `${list(late.map(({ name }) => code(name)))} may not write here`
        : "nobody but its authors approved its last commit";
  throw refused(`${named(forge, request)} is not approved at ${request.head}: ${why}.`);
}

/**
 * Who released a job that waits for an environment, other than the request's authors. An environment that nobody protected
 * releases by itself: that is refused. So is a second update by one plan: the first one changed what the plan was made of,
 * and what the reviewers were shown.
 *
 * @param planned what the plan was made of, and by which job
 */
export async function releaseOf(
  forge: Forge,
  planned: Source & { request: number },
  environment: string,
): Promise<string[]> {
  await (forge.kind === "github" ? firstOnGitHub : firstOnGitLab)(forge, planned);
  const writers = await (forge.kind === "github" ? writersOnGitHub : writersOnGitLab)(forge, planned.request);
  const by = (await (forge.kind === "github" ? releasesOnGitHub : releaseOnGitLab)(forge, environment)).filter(
    (name) => !writers.includes(name),
  );
  if (by.length > 0) return by;
  throw refused(
    `Nobody but its authors released this job for the environment ${code(environment)}: give the environment required reviewers, and let one of them who did not write the change look at the plan.`,
  );
}

const usedPlan = (why: string, again: string): Refusal =>
  refused(
    `${why}, and a plan is for one update: what that one changed is not what the plan was made of. ${again}, so that there is a new plan. If that differs from what was approved, because a part of it is done, make a pull request for the rest.`,
  );

interface Request {
  number: number;
  head: string;
  writers: string[];
}
interface Voice {
  name: string;
  id: number;
  at: Date;
  approves: boolean;
}
interface StoredForm {
  form: string;
  at: Date;
}

const named = ({ kind }: Forge, { number }: Request) =>
  kind === "github" ? `Pull request #${number}` : `Merge request !${number}`;

function only<T>(found: T[], { commit, branch }: { commit: string; branch: string }): T {
  const [first, second] = found;
  if (first === undefined)
    throw refused(`${commit} was merged into ${branch} by no request: nobody approved what it does.`);
  if (second !== undefined) throw refused(`${commit} was merged into ${branch} by ${found.length} requests at once.`);
  return first;
}

/** The newest form, which all previews of one commit must agree on: one that differs may be anybody's. */
function agreed(forge: Forge, request: Request, forms: (StoredForm & { approved: Approved })[]): StoredForm {
  const [newest, ...older] = forms.toSorted((a, b) => b.at.getTime() - a.at.getTime());
  if (newest === undefined) {
    throw refused(
      `No preview of ${named(forge, request)} at ${request.head} succeeded and is still stored, so there is nothing to compare with.`,
    );
  }
  const said = ({ approved }: { approved: Approved }) => canonicalJson({ ...approved, source: undefined });
  if (older.some((each) => said(each) !== said(newest))) {
    throw refused(
      `${count(forms.length, "preview")} of ${request.head} say different things for ${named(forge, request)}.`,
    );
  }
  return newest;
}

// GitHub

const user = z.object({ login: z.string(), id: z.number() });

const pull = z.object({
  number: z.number(),
  merged_at: z.string().nullable(),
  merge_commit_sha: z.string().nullable(),
  user: user.nullable(),
  head: z.object({ sha: z.string() }),
  base: z.object({ ref: z.string(), repo: z.object({ full_name: z.string() }) }),
});

async function pullRequest(forge: Forge, merged: { commit: string; branch: string }): Promise<Request> {
  const all = await askAll(forge, `${forge.project}/commits/${merged.commit}/pulls`, pull);
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
  return { number, head: head.sha, writers: await writersOnGitHub(forge, number) };
}

async function writersOnGitHub(forge: Forge, number: number): Promise<string[]> {
  const place = `${forge.project}/pulls/${number}`;
  const commit = z.object({ author: z.unknown().optional(), committer: z.unknown().optional() });
  const commits = await askAll(forge, `${place}/commits`, commit);
  const people = [(await ask(forge, place, pull)).user, ...commits.flatMap((each) => [each.author, each.committer])];
  return people.flatMap((person) => user.safeParse(person).data?.login ?? []);
}

async function reviews(forge: Forge, { number, head }: Request): Promise<Voice[]> {
  const review = z.object({
    user: user.extend({ type: z.string() }).nullable(),
    state: z.string(),
    commit_id: z.string().nullable(),
    submitted_at: z.string().nullish(),
  });
  const all = await askAll(forge, `${forge.project}/pulls/${number}/reviews`, review);
  // In the order of time: a person's last word is what counts, and a comment takes nothing back.
  const words = all.filter(
    ({ user: by, state }) => by?.type === "User" && state !== "COMMENTED" && state !== "PENDING",
  );
  const last = new Map(words.map((each) => [each.user?.login ?? "", each]));
  const voices: Voice[] = [];
  for (const { user: by, state, commit_id, submitted_at } of last.values()) {
    if (by === null || !submitted_at) continue;
    const voice = { name: by.login, id: by.id, at: new Date(submitted_at) };
    if (state === "APPROVED" && commit_id === head) voices.push({ ...voice, approves: true });
    if (state === "CHANGES_REQUESTED" && (await mayWrite(forge, by.login, by.id)))
      voices.push({ ...voice, approves: false });
  }
  return voices;
}

async function mayWrite(forge: Forge, name: string, id: number): Promise<boolean> {
  if (forge.kind === "gitlab") {
    const member = await ask(forge, `${forge.project}/members/all/${id}`, z.object({ access_level: z.number() }));
    return member.access_level >= 30; // Developer
  }
  const place = `${forge.project}/collaborators/${encodeURIComponent(name)}/permission`;
  const { permission } = await ask(forge, place, z.object({ permission: z.string() }));
  return ["admin", "write"].includes(permission);
}

/** GitHub says of a run which commit it is of, but not for which of several pull requests with that commit: the form does. */
async function previewOnGitHub(forge: Forge, request: Request, stored: string): Promise<StoredForm> {
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

async function releasesOnGitHub(forge: Forge, environment: string): Promise<string[]> {
  const release = z.object({
    state: z.string(),
    environments: z.array(z.object({ name: z.string() })),
    user,
  });
  const place = `${forge.project}/actions/runs/${forge.need("GITHUB_RUN_ID")}/approvals`;
  return (await ask(forge, place, z.array(release)))
    .filter(({ state, environments }) => state === "approved" && environments.some(({ name }) => name === environment))
    .map((each) => each.user.login);
}

/** "Re-run failed jobs" counts the attempt up, and the plan stays that of the attempt before. */
function firstOnGitHub(forge: Forge, { attempt }: Source): void {
  const now = forge.need("GITHUB_RUN_ATTEMPT");
  if (now !== attempt) {
    throw usedPlan(`The plan is of attempt ${attempt}, this is attempt ${now}`, "Re-run all jobs");
  }
}

// GitLab

const member = z.object({ username: z.string(), id: z.number() });

const merge = z.object({
  iid: z.number(),
  state: z.string(),
  target_branch: z.string(),
  sha: z.string(),
  merge_commit_sha: z.string().nullish(),
  squash_commit_sha: z.string().nullish(),
  author: member.nullable(),
});

async function mergeRequest(forge: Forge, merged: { commit: string; branch: string }): Promise<Request> {
  const all = await askAll(forge, `${forge.project}/repository/commits/${merged.commit}/merge_requests`, merge);
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
async function writersOnGitLab(forge: Forge, number: number): Promise<string[]> {
  const { author } = await ask(forge, `${forge.project}/merge_requests/${number}`, merge);
  return author ? [author.username] : [];
}

async function approvals(forge: Forge, { number }: Request): Promise<Voice[]> {
  const answer = z.object({ approved_by: z.array(z.object({ user: member, approved_at: z.string() })) });
  const { approved_by } = await ask(forge, `${forge.project}/merge_requests/${number}/approvals`, answer);
  return approved_by.map(({ user: { username, id }, approved_at }) => ({
    name: username,
    id,
    at: new Date(approved_at),
    approves: true,
  }));
}

async function previewOnGitLab(forge: Forge, request: Request, stored: string): Promise<StoredForm> {
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
async function firstOnGitLab(forge: Forge, { attempt }: Source): Promise<void> {
  const [own, name] = [Number(forge.need("CI_JOB_ID")), forge.need("CI_JOB_NAME")];
  const job = z.object({ id: z.number(), name: z.string(), started_at: z.string().nullable() });
  const place = `${forge.project}/pipelines/${forge.need("CI_PIPELINE_ID")}/jobs?include_retried=true`;
  const earlier = (await askAll(forge, place, job)).find(
    (each) => each.name === name && each.id !== own && each.id > Number(attempt) && each.started_at !== null,
  );
  if (earlier) throw usedPlan(`Job ${earlier.id} began to update by this plan`, "Run the plan's job again");
}

/** Of a manual job it is who started it; GET /job answers that to the job's own token alone. */
async function releaseOnGitLab(forge: Forge): Promise<string[]> {
  const own = { ...forge, headers: { "job-token": forge.need("CI_JOB_TOKEN") } };
  return [(await ask(own, "/job", z.object({ user: member }))).user.username];
}
