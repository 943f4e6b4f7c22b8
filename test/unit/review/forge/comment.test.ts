import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { commentsOf, postComment } from "../../../../review/forge/comment.ts";

// A server that keeps comments as both forges do, and notes what it was asked.
interface Comment {
  id: number;
  body: string;
  user?: { type: string };
  author?: { username: string };
}
let comments: Comment[];
let asked: string[];
let server: Server;
let address: string;
let directory: string;

beforeEach(async () => {
  [comments, asked] = [[], []];
  server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://x");
    asked.push(`${request.method} ${url.pathname}`);
    const authorized = request.headers.authorization === "Bearer t" || request.headers["private-token"] === "t";
    let text = "";
    request.on("data", (chunk) => {
      text += chunk;
    });
    request.on("end", () => {
      if (!authorized) return response.writeHead(401).end('{"message":"Bad credentials"}');
      if (request.method === "GET") {
        const [size, page] = [Number(url.searchParams.get("per_page")), Number(url.searchParams.get("page"))];
        return response.end(JSON.stringify(comments.slice((page - 1) * size, page * size)));
      }
      const { body } = JSON.parse(text) as { body: string };
      const known = comments.find(({ id }) => url.pathname.endsWith(`/${id}`));
      if (known) known.body = body;
      else comments.push({ id: comments.length + 1, body, ...bot });
      return response.end("{}");
    });
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  directory = mkdtempSync(join(tmpdir(), "comment-"));
  writeFileSync(join(directory, "event.json"), JSON.stringify({ pull_request: { number: 7 } }));
});
afterEach(() => {
  server.close();
  rmSync(directory, { recursive: true });
});

const github = () => ({
  GITHUB_ACTIONS: "true",
  GITHUB_REPOSITORY: "o/r",
  GITHUB_API_URL: address,
  GITHUB_TOKEN: "t",
  GITHUB_EVENT_PATH: join(directory, "event.json"),
});
const gitlab = () => ({
  GITLAB_CI: "true",
  CI_API_V4_URL: address,
  CI_PROJECT_ID: "3",
  CI_MERGE_REQUEST_IID: "7",
  GITLAB_TOKEN: "t",
});
/** Who a token of a workflow, or of a project, is. */
const bot = { user: { type: "Bot" }, author: { username: "project_3_bot_c0ffee" } };
const person = { user: { type: "User" }, author: { username: "mallory" } };
const body = (text: string) => `<!-- marker -->\n\n${text}`;

test.each([
  [
    "GitHub",
    github,
    ["GET /repos/o/r/issues/7/comments", "POST /repos/o/r/issues/7/comments"],
    "PATCH /repos/o/r/issues/comments/",
  ],
  [
    "GitLab",
    gitlab,
    ["GET /projects/3/merge_requests/7/notes", "POST /projects/3/merge_requests/7/notes"],
    "PUT /projects/3/merge_requests/7/notes/",
  ],
])("%s: one comment, which later runs change", async (_name, env, created, updated) => {
  expect(await postComment(commentsOf(env()), body("first"))).toBe("created");
  expect(asked).toEqual(created);
  // Others talk, too: ours is on a later page.
  comments.unshift(
    ...Array.from({ length: 150 }, (_, index) => ({ id: 1_000 + index, body: "quoted <!-- marker -->" })),
  );
  // Who wrote a comment can change it: a person's is not for us to fill.
  comments.unshift({ id: 999, body: body("a trap"), ...person });
  expect(await postComment(commentsOf(env()), body("second"))).toBe("updated");
  expect(comments.filter((comment) => comment.body.startsWith("<!-- marker")).map((comment) => comment.body)).toEqual([
    body("a trap"),
    body("second"),
  ]);
  expect(asked.at(-1)).toBe(`${updated}1`);
});

test("an answer that is an error is told", async () => {
  await expect(postComment(commentsOf({ ...github(), GITHUB_TOKEN: "x" }), body("a"))).rejects.toThrow(
    /answered 401: .*Bad credentials/,
  );
});

test.each(["", "\n", "Error: no preview"])(
  "a text that is no summary (%j) is written over nobody's comment",
  async (text) => {
    comments.push({ id: 1, body: text === "" ? "What a person said." : `${text}\nsaid a person` });
    await expect(postComment(commentsOf(github()), text)).rejects.toThrow("no comment is written");
    expect(asked).toEqual([]);
  },
);

test("outside of a job for a pull request it says what is missing", () => {
  expect(() => commentsOf({})).toThrow("Neither GITHUB_ACTIONS nor GITLAB_CI is set");
  expect(() => commentsOf({ ...github(), GITHUB_TOKEN: "" })).toThrow("The variable GITHUB_TOKEN is not set");
  expect(() => commentsOf({ ...gitlab(), CI_MERGE_REQUEST_IID: "" })).toThrow("merge request pipelines only");
  writeFileSync(join(directory, "event.json"), "{}");
  expect(() => commentsOf(github())).toThrow("was not started by a pull request");
});
