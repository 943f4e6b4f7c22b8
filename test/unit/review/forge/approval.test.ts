import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { crc32, deflateRawSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { canonical, type Source } from "../../../../review/approval/form.ts";
import { approvalOf, releaseOf } from "../../../../review/forge/approval.ts";
import { forgeOf } from "../../../../review/forge/forge.ts";
import { onlyFile } from "../../../../review/forge/zip.ts";
import { sha256 } from "../../../../runtime/canonical.ts";
import { type DocumentStep, summaryOf } from "../documents.ts";

/* A server that answers what the forges' APIs do; each test changes one thing in a request that is in order. */

let answers: Record<string, unknown>;
let asked: { path: string; headers: NodeJS.Dict<string | string[]> }[];
let server: Server;
let address: string;

beforeEach(async () => {
  [answers, asked] = [{}, []];
  server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://x");
    asked.push({ path: pathname, headers: request.headers });
    const answer = answers[pathname];
    if (answer === undefined) return response.writeHead(404).end('{"message":"Not Found"}');
    if (Buffer.isBuffer(answer) || typeof answer === "string") return response.end(answer);
    const [size, page] = [Number(searchParams.get("per_page") ?? 100), Number(searchParams.get("page") ?? 1)];
    return response.end(JSON.stringify(pageOf(answer, (page - 1) * size, page * size)));
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(() => {
  server.close();
});

function pageOf(answer: unknown, from: number, to: number): unknown {
  if (Array.isArray(answer)) return answer.slice(from, to);
  return Object.fromEntries(
    Object.entries(answer as object).map(([key, value]) => [key, Array.isArray(value) ? value.slice(from, to) : value]),
  );
}

const head = "a".repeat(40);
const merge = { commit: "f".repeat(40), branch: "main" };
const remove = (name: string): DocumentStep => ({
  op: "delete",
  type: "kubernetes:core/v1:Namespace",
  name,
  before: {},
});
const formOf = (source: Partial<Source>, ...steps: DocumentStep[]) =>
  canonical(summaryOf(...(steps.length > 0 ? steps : [remove("n")])), {
    request: 7,
    commit: head,
    run: "50",
    attempt: "1",
    ...source,
  });

/** A zip as GitHub keeps an artifact: one deflated file. */
function zipOf(name: string, text: string): Buffer {
  const [data, bytes] = [deflateRawSync(text), Buffer.from(name)];
  const common = Buffer.alloc(26);
  common.writeUInt16LE(20, 0);
  common.writeUInt16LE(8, 4);
  common.writeUInt32LE(crc32(text), 10);
  common.writeUInt32LE(data.length, 14);
  common.writeUInt32LE(Buffer.byteLength(text), 18);
  common.writeUInt16LE(bytes.length, 22);
  const local = Buffer.concat([Buffer.from("PK\x03\x04"), common, bytes, data]);
  const central = Buffer.concat([Buffer.from("PK\x01\x02\x14\0"), common, Buffer.alloc(14), bytes]);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(1, 4);
  end.writeUInt16LE(1, 6);
  end.writeUInt32LE(central.length, 8);
  end.writeUInt32LE(local.length, 12);
  return Buffer.concat([local, central, Buffer.from("PK\x05\x06"), end]);
}

describe("GitHub", () => {
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
    answers[`${repository}/actions/runs/${runId}/artifacts`] = {
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
    answers[`${repository}/actions/artifacts/${runId * 10}/zip`] = zip;
  };
  const inOrder = () => {
    answers[`${repository}/commits/${merge.commit}/pulls`] = [pull()];
    answers[`${repository}/pulls/7`] = pull();
    answers[`${repository}/pulls/7/commits`] = [{ author, committer: { login: "web-flow", id: 9 } }, { author: null }];
    answers[`${repository}/pulls/7/reviews`] = [review("boss", "APPROVED")];
    answers[`${repository}/actions/runs`] = { workflow_runs: [run(50)] };
    store(50, formOf({}));
    for (const [name, permission] of Object.entries({ boss: "write", author: "admin", guest: "read", pusher: "write" }))
      answers[`${repository}/collaborators/${name}/permission`] = { permission };
  };
  const forge = () =>
    forgeOf({
      GITHUB_ACTIONS: "true",
      GITHUB_REPOSITORY: "o/r",
      GITHUB_API_URL: address,
      GITHUB_TOKEN: "t",
      GITHUB_RUN_ID: "60",
      GITHUB_RUN_ATTEMPT: "2",
    });
  const planned = { request: 7, commit: merge.commit, run: "60", attempt: "2" };
  const approval = () => approvalOf(forge(), merge, "approved-0");
  const set = (path: string, answer: unknown) => {
    answers[`${repository}/${path}`] = answer;
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
});

describe("GitLab", () => {
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
      CI_API_V4_URL: address,
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
    answers[`${project}/${path}`] = answer;
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
    [
      "nobody approved",
      () => set("merge_requests/7/approvals", { approved_by: [] }),
      "nobody but its authors approved",
    ],
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
    answers["/job"] = { user: { username: "boss", id: 2 } };
    expect(await releaseOf(forge(), planned, "deploy/production")).toEqual(["boss"]);
    const own = asked.find(({ path }) => path === "/job");
    expect(own?.headers).toMatchObject({ "job-token": "job" });
    expect(own?.headers).not.toHaveProperty("private-token");
    answers["/job"] = { user: { username: "author", id: 1 } };
    await expect(releaseOf(forge(), planned, "deploy/production")).rejects.toThrow("Nobody but its authors");
  });

  test("a job that is run again without its plan does nothing", async () => {
    answers["/job"] = { user: { username: "boss", id: 2 } };
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
});

describe("an artifact's zip", () => {
  test("gives its one file", () => {
    expect(onlyFile(zipOf("a.json", "text"), "a.json")).toBe("text");
  });
  test.each<[string, Buffer, string]>([
    ["nothing", Buffer.alloc(0), "exactly one file"],
    ["another file", zipOf("b.json", "text"), 'its file is "b.json"'],
    ["half of it", zipOf("a.json", "text").subarray(20), "no zip of a.json alone"],
  ])("of %s is refused", (_name, zip, sentence) => {
    expect(() => onlyFile(zip, "a.json")).toThrow(sentence);
  });
  test("that unpacks to more than there is memory for is refused", () => {
    expect(() => onlyFile(zipOf("a.json", "0".repeat(65 << 20)), "a.json")).toThrow("no zip of a.json alone");
  });
});
