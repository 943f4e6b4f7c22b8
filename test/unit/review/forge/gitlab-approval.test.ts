import { beforeEach, expect, test } from "vitest";
import { approvalOf, releaseOf } from "../../../../review/forge/approval.ts";
import { forgeOf } from "../../../../review/forge/forge.ts";
import { formOf, head, merge, useForgeServer } from "./forge-server.ts";

/* GitLab: each test changes one thing in a merge request that is in order. */

const server = useForgeServer();
const project = "/projects/3";
const request = (more: object = {}) => ({
  iid: 7,
  state: "merged",
  target_branch: "main",
  sha: head,
  merge_commit_sha: merge.commit,
  squash_commit_sha: null,
  author: { username: "author", id: 1 },
  ...more,
});
const approved = (username: string, at = "2030-01-01T11:00:00Z", id = 2) => ({
  approved_by: [{ user: { username, id }, approved_at: at }],
});
const job = (id: number, more: object = {}) => ({
  id,
  name: "preview: [production]",
  status: "success",
  finished_at: "2030-01-01T10:00:00Z",
  ...more,
});
const stored = "stacks/production/approved.json";
const forge = () =>
  forgeOf({
    GITLAB_CI: "true",
    CI_API_V4_URL: server.address,
    CI_PROJECT_ID: "3",
    GITLAB_TOKEN: "t",
    CI_JOB_TOKEN: "job",
    CI_PIPELINE_ID: "60",
    CI_JOB_ID: "74",
    CI_JOB_NAME: "apply: [production]",
  });
const planned = { request: 7, commit: merge.commit, run: "60", attempt: "70" };
const update = (id: number, started: string | null, name = "apply: [production]") => ({
  id,
  name,
  started_at: started,
});
const approval = () => approvalOf(forge(), merge, stored);
const set = (path: string, answer: unknown) => {
  server.answers[`${project}/${path}`] = answer;
};
beforeEach(() => {
  set(`repository/commits/${merge.commit}/merge_requests`, [request({ iid: 6, state: "opened" }), request()]);
  set("merge_requests/7", request());
  set("merge_requests/7/approvals", approved("boss"));
  set("merge_requests/7/pipelines", [{ id: 5, sha: head, status: "success", source: "merge_request_event" }]);
  set("pipelines/5/jobs", [job(8, { name: "lint" }), job(9), job(10, { name: "preview: [staging]" })]);
  set("jobs/9/artifacts/stacks/production/approved.json", formOf({ attempt: "9" }));
  set("pipelines/60/jobs", [update(74, "2030-01-01T13:00:00Z")]);
  set("members/all/2", { access_level: 30 });
  set("members/all/4", { access_level: 20 });
});

test("an approval after the preview, by somebody else", async () => {
  expect(await approval()).toEqual({ request: 7, head, by: ["boss"], form: formOf({ attempt: "9" }) });
});

test.each<[string, () => void, string]>([
  ["nobody approved", () => set("merge_requests/7/approvals", { approved_by: [] }), "nobody but its authors approved"],
  ["the author approved", () => set("merge_requests/7/approvals", approved("author")), "nobody but its authors"],
  [
    "one who may only read approved",
    () => set("merge_requests/7/approvals", approved("guest", "2030-01-01T11:00:00Z", 4)),
    "`guest` may not write here",
  ],
  [
    "the preview was run again after the approval",
    () => set("merge_requests/7/approvals", approved("boss", "2030-01-01T09:00:00Z")),
    "`boss` approved before its preview",
  ],
  ["the commit was pushed", () => set(`repository/commits/${merge.commit}/merge_requests`, []), "by no request"],
  [
    "the commit was merged into another branch",
    () => set(`repository/commits/${merge.commit}/merge_requests`, [request({ target_branch: "feature" })]),
    "by no request",
  ],
  [
    "the pipeline is a branch's",
    () => set("merge_requests/7/pipelines", [{ id: 5, sha: head, status: "success", source: "push" }]),
    "No preview of Merge request !7",
  ],
  [
    "the form is another commit's",
    () => set("jobs/9/artifacts/stacks/production/approved.json", formOf({ attempt: "9", commit: "b".repeat(40) })),
    "No preview of Merge request !7",
  ],
])("stops where %s", async (_name, change, sentence) => {
  change();
  await expect(approval()).rejects.toThrow(sentence);
});

test("the manual job is asked about with its own token, and its author may not start it", async () => {
  server.answers["/job"] = { user: { username: "boss", id: 2 } };
  expect(await releaseOf(forge(), planned, "deploy/production")).toEqual(["boss"]);
  const own = server.asked.find(({ path }) => path === "/job");
  expect(own?.headers).toMatchObject({ "job-token": "job" });
  expect(own?.headers).not.toHaveProperty("private-token");
  server.answers["/job"] = { user: { username: "author", id: 1 } };
  await expect(releaseOf(forge(), planned, "deploy/production")).rejects.toThrow("Nobody but its authors");
});

test("a job that is run again without its plan does nothing", async () => {
  server.answers["/job"] = { user: { username: "boss", id: 2 } };
  const at = "2030-01-01T12:30:00Z";
  const jobs = (...others: object[]) => set("pipelines/60/jobs", [update(74, "2030-01-01T13:00:00Z"), ...others]);
  // One that nobody started, one by the plan before, another stack's, and the plan itself.
  jobs(update(72, null), update(69, at), update(73, at, "apply: [staging]"), update(70, at, "plan: [production]"));
  expect(await releaseOf(forge(), planned, "deploy/production")).toEqual(["boss"]);
  jobs(update(72, at));
  await expect(releaseOf(forge(), planned, "deploy/production")).rejects.toThrow(
    "Job 72 began to update by this plan, and a plan is for one update",
  );
});
