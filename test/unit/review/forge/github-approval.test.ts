import { beforeEach, expect, test } from "vitest";
import { approvalOf, releaseOf } from "../../../../review/forge/approval.ts";
import { forgeOf } from "../../../../review/forge/forge.ts";
import { sha256 } from "../../../../runtime/canonical.ts";
import { formOf, head, merge, remove, useForgeServer } from "./forge-server.ts";
import { zipOf } from "./zip-of.ts";

/* GitHub: each test changes one thing in a pull request that is in order. */

const server = useForgeServer();
const repository = "/repos/o/r";
const author = { login: "author", id: 1 };
const pull = (more: object = {}) => ({
  number: 7,
  merged_at: "2030-01-01T12:00:00Z",
  merge_commit_sha: merge.commit,
  user: author,
  head: { sha: head },
  base: { ref: "main", repo: { full_name: "o/r" } },
  ...more,
});
const review = (login: string, state: string, more: object = {}) => ({
  user: { login, id: 2, type: "User" },
  state,
  commit_id: head,
  submitted_at: "2030-01-01T11:00:00Z",
  ...more,
});
const run = (id: number, more: object = {}) => ({
  id,
  path: ".github/workflows/preview.yml",
  conclusion: "success",
  head_sha: head,
  ...more,
});
/** Stores what a run's preview made. */
const store = (runId: number, form: string, created = "2030-01-01T10:00:00Z", more: object = {}) => {
  const zip = zipOf("approved.json", form);
  server.answers[`${repository}/actions/runs/${runId}/artifacts`] = {
    artifacts: [
      {
        id: runId * 10,
        name: "approved-0",
        expired: false,
        created_at: created,
        digest: `sha256:${sha256(zip)}`,
        ...more,
      },
    ],
  };
  server.answers[`${repository}/actions/artifacts/${runId * 10}/zip`] = zip;
};
const inOrder = () => {
  server.answers[`${repository}/commits/${merge.commit}/pulls`] = [pull()];
  server.answers[`${repository}/pulls/7`] = pull();
  server.answers[`${repository}/pulls/7/commits`] = [
    { author, committer: { login: "web-flow", id: 9 } },
    { author: null },
  ];
  server.answers[`${repository}/pulls/7/reviews`] = [review("boss", "APPROVED")];
  server.answers[`${repository}/actions/runs`] = { workflow_runs: [run(50)] };
  store(50, formOf({}));
  for (const [name, permission] of Object.entries({ boss: "write", author: "admin", guest: "read", pusher: "write" }))
    server.answers[`${repository}/collaborators/${name}/permission`] = { permission };
};
const forge = () =>
  forgeOf({
    GITHUB_ACTIONS: "true",
    GITHUB_REPOSITORY: "o/r",
    GITHUB_API_URL: server.address,
    GITHUB_TOKEN: "t",
    GITHUB_RUN_ID: "60",
    GITHUB_RUN_ATTEMPT: "2",
  });
const planned = { request: 7, commit: merge.commit, run: "60", attempt: "2" };
const approval = () => approvalOf(forge(), merge, "approved-0");
const set = (path: string, answer: unknown) => {
  server.answers[`${repository}/${path}`] = answer;
};
beforeEach(inOrder);

test("an approval of the last commit, after its preview, by somebody else", async () => {
  expect(await approval()).toEqual({ request: 7, head, by: ["boss"], form: formOf({}) });
});

test("of many reviews all pages are read, and a person's last word counts", async () => {
  const comments = Array.from({ length: 150 }, (_, index) => review(`p${index}`, "COMMENTED"));
  set("pulls/7/reviews", [review("boss", "CHANGES_REQUESTED"), ...comments, review("boss", "APPROVED")]);
  expect((await approval()).by).toEqual(["boss"]);
  set("pulls/7/reviews", [review("boss", "APPROVED"), ...comments, review("boss", "DISMISSED")]);
  await expect(approval()).rejects.toThrow("nobody but its authors approved its last commit");
});

const earlier = "2030-01-01T09:00:00Z";
test.each<[string, () => void, string]>([
  [
    "nobody reviewed: a preview that worked approves nothing",
    () => set("pulls/7/reviews", []),
    "nobody but its authors approved its last commit",
  ],
  [
    "an earlier commit was approved",
    () => set("pulls/7/reviews", [review("boss", "APPROVED", { commit_id: "b".repeat(40) })]),
    "nobody but its authors approved its last commit",
  ],
  [
    "the author approved",
    () => set("pulls/7/reviews", [review("author", "APPROVED")]),
    "nobody but its authors approved its last commit",
  ],
  [
    "one who wrote one of its commits approved",
    () => {
      set("pulls/7/commits", [{ author }, { author: { login: "pusher", id: 3 }, committer: null }]);
      set("pulls/7/reviews", [review("pusher", "APPROVED")]);
    },
    "nobody but its authors approved its last commit",
  ],
  [
    "one who may only read approved",
    () => set("pulls/7/reviews", [review("guest", "APPROVED")]),
    "`guest` may not write here",
  ],
  [
    "a bot approved",
    () => set("pulls/7/reviews", [review("boss", "APPROVED", { user: { login: "boss", id: 2, type: "Bot" } })]),
    "nobody but its authors approved its last commit",
  ],
  [
    "the approval was dismissed",
    () => set("pulls/7/reviews", [review("boss", "DISMISSED")]),
    "nobody but its authors approved its last commit",
  ],
  [
    "somebody else asks for changes",
    () => set("pulls/7/reviews", [review("boss", "APPROVED"), review("pusher", "CHANGES_REQUESTED")]),
    "`pusher` asks for changes of Pull request #7",
  ],
  [
    "the preview was run again after the approval",
    () => set("pulls/7/reviews", [review("boss", "APPROVED", { submitted_at: earlier })]),
    "`boss` approved before its preview of 2030-01-01T10:00:00.000Z was stored",
  ],
  [
    "the commit was pushed",
    () => set(`commits/${merge.commit}/pulls`, []),
    "was merged into main by no request: nobody approved what it does",
  ],
  [
    "the commit was merged into another branch, or is of another repository's request",
    () =>
      set(`commits/${merge.commit}/pulls`, [
        pull({ base: { ref: "feature", repo: { full_name: "o/r" } } }),
        pull({ base: { ref: "main", repo: { full_name: "o/other" } } }),
        pull({ merged_at: null }),
        pull({ merge_commit_sha: "c".repeat(40) }),
      ]),
    "was merged into main by no request",
  ],
  ["no preview ran", () => set("actions/runs", { workflow_runs: [] }), "No preview of Pull request #7"],
  [
    "the preview failed, or is another workflow's",
    () =>
      set("actions/runs", {
        workflow_runs: [run(50, { conclusion: "failure" }), run(50, { path: ".github/workflows/mine.yml" })],
      }),
    "No preview of Pull request #7",
  ],
  [
    "the form is another pull request's with the same last commit",
    () => store(50, formOf({ request: 8 })),
    "No preview of Pull request #7",
  ],
  ["the form is another commit's", () => store(50, formOf({ commit: "b".repeat(40) })), "No preview of Pull"],
  ["the form is another run's", () => store(50, formOf({ run: "51" })), "No preview of Pull request #7"],
  [
    "the form is no longer stored",
    () => store(50, formOf({}), "2030-01-01T10:00:00Z", { expired: true }),
    "No preview of Pull request #7",
  ],
  [
    "what is stored changed on its way",
    () => store(50, formOf({}), "2030-01-01T10:00:00Z", { digest: `sha256:${"0".repeat(64)}` }),
    "Artifact 500 is not what was stored",
  ],
])("stops where %s", async (_name, change, sentence) => {
  change();
  await expect(approval()).rejects.toThrow(sentence);
});

test("a second pull request with the same last commit lends its preview to nobody", async () => {
  set("actions/runs", { workflow_runs: [run(51), run(50)] });
  store(51, formOf({ request: 8, run: "51" }, remove("everything")));
  expect((await approval()).form).toBe(formOf({}));
  // Its workflow may say what it wants, so it says that it is of the first.
  store(51, formOf({ run: "51" }, remove("everything")));
  await expect(approval()).rejects.toThrow("2 previews of aaaa");
});

test("a preview made twice that says the same is one, and the approval must be newer than both", async () => {
  set("actions/runs", { workflow_runs: [run(51), run(50)] });
  store(51, formOf({ run: "51" }), "2030-01-01T10:30:00Z");
  expect((await approval()).form).toBe(formOf({ run: "51" }));
  store(51, formOf({ run: "51" }), "2030-01-01T11:30:00Z");
  await expect(approval()).rejects.toThrow("approved before its preview of 2030-01-01T11:30");
});

test("an answer of another shape is refused, and one that is an error is told", async () => {
  set("pulls/7/reviews", [{ user: "boss", state: "APPROVED" }]);
  await expect(approval()).rejects.toThrow("answered something else than this version");
  set("pulls/7/reviews", undefined);
  await expect(approval()).rejects.toThrow("answered 404");
});

const release = (login: string, name: string, state = "approved") => ({
  state,
  environments: [{ name }],
  user: { login, id: 4 },
});
test("who let the job go on", async () => {
  set("actions/runs/60/approvals", [release("boss", "deploy-production")]);
  expect(await releaseOf(forge(), planned, "deploy-production")).toEqual(["boss"]);
});
test.each([
  ["nobody: the environment has no required reviewers", []],
  ["the author", [release("author", "deploy-production")]],
  ["somebody, for another stack", [release("boss", "deploy-staging")]],
  ["somebody, who refused", [release("boss", "deploy-production", "rejected")]],
])("a job that was let go on by %s does nothing", async (_name, releases) => {
  set("actions/runs/60/approvals", releases);
  await expect(releaseOf(forge(), planned, "deploy-production")).rejects.toThrow(
    "give the environment required reviewers",
  );
});
test.each(["1", "3"])(
  "a job that is run again without its plan, which is of attempt %s, does nothing",
  async (attempt) => {
    set("actions/runs/60/approvals", [release("boss", "deploy-production")]);
    await expect(releaseOf(forge(), { ...planned, attempt }, "deploy-production")).rejects.toThrow(
      `The plan is of attempt ${attempt}, this is attempt 2, and a plan is for one update`,
    );
  },
);
