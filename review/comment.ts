import { readFileSync } from "node:fs";
import { Refusal } from "../node-installer/runtime/refusal.ts";

/** Where one comment of a pull or merge request is made or changed. Paths are below the API's address. */
interface Forge {
  api: string;
  headers: Record<string, string>;
  /** Comments, a page at a time. */
  list: (page: number) => string;
  create: string;
  update: (id: number) => { method: string; path: string };
  /** Whether its author is one as this token's. A person who writes the marker could change afterwards what it says. */
  isOurs: (comment: Comment) => boolean;
}

interface Comment {
  id: number;
  body?: string;
  /** GitHub's. */
  user?: { type?: string };
  /** GitLab's. */
  author?: { username?: string };
}

const pageSize = 100;

/**
 * The forge that a workflow runs in, from the variables that it sets. Throws a Refusal that names the missing one.
 * GitHub's GITHUB_TOKEN needs `pull-requests: write`; GitLab's GITLAB_TOKEN is a project access token with `api`.
 */
export function forgeOf(env: NodeJS.ProcessEnv): Forge {
  const need = (name: string): string => {
    const value = env[name];
    if (value) return value;
    throw new Refusal(
      "no-forge",
      `The variable ${name} is not set: ${advice[name] ?? "run this in a job for a pull or merge request"}.`,
    );
  };
  if (env.GITHUB_ACTIONS) {
    const comments = `/repos/${need("GITHUB_REPOSITORY")}/issues`;
    const all = `${comments}/${pullRequest(need("GITHUB_EVENT_PATH"))}/comments`;
    return {
      api: need("GITHUB_API_URL"),
      headers: { authorization: `Bearer ${need("GITHUB_TOKEN")}`, accept: "application/vnd.github+json" },
      list: (page) => `${all}?per_page=${pageSize}&page=${page}`,
      create: all,
      update: (id) => ({ method: "PATCH", path: `${comments}/comments/${id}` }),
      isOurs: ({ user }) => user?.type === "Bot",
    };
  }
  if (env.GITLAB_CI) {
    const notes = `/projects/${need("CI_PROJECT_ID")}/merge_requests/${need("CI_MERGE_REQUEST_IID")}/notes`;
    return {
      api: need("CI_API_V4_URL"),
      headers: { "private-token": need("GITLAB_TOKEN") },
      list: (page) => `${notes}?per_page=${pageSize}&page=${page}`,
      create: notes,
      update: (id) => ({ method: "PUT", path: `${notes}/${id}` }),
      isOurs: ({ author }) => /^(project|group)_\d+_bot/.test(author?.username ?? ""),
    };
  }
  throw new Refusal(
    "no-forge",
    "Neither GITHUB_ACTIONS nor GITLAB_CI is set: run this in a job for a pull or merge request.",
  );
}

const advice: Record<string, string> = {
  GITHUB_TOKEN: "give the step the workflow's token (github.token)",
  GITLAB_TOKEN: "make a project access token with scope api and store it as a masked variable",
  CI_MERGE_REQUEST_IID: "let the job run in merge request pipelines only",
};

function pullRequest(eventFile: string): number {
  const event = JSON.parse(readFileSync(eventFile, "utf8")) as { pull_request?: { number?: number } };
  if (event.pull_request?.number !== undefined) return event.pull_request.number;
  throw new Refusal("no-forge", "This workflow was not started by a pull request, so there is nothing to comment on.");
}

/**
 * Writes the comment, over the token's own of an earlier run, which its first line, the marker, tells from others. Throws a Refusal
 * for a text without one, as a summary that could not be made leaves behind: it would be written over anybody's comment.
 */
export async function postComment(forge: Forge, body: string): Promise<"created" | "updated"> {
  const marker = body.split("\n", 1)[0] ?? "";
  if (!/^<!-- .+ -->$/.test(marker)) {
    throw new Refusal(
      "no-summary",
      'The text does not begin as what "contrast-runtime review summary" prints: no comment is written.',
    );
  }
  const id = await findComment(forge, marker);
  const { method, path } = id === undefined ? { method: "POST", path: forge.create } : forge.update(id);
  await call(forge, method, path, { body });
  return id === undefined ? "created" : "updated";
}

async function findComment(forge: Forge, marker: string): Promise<number | undefined> {
  for (let page = 1; ; page += 1) {
    const comments = (await call(forge, "GET", forge.list(page))) as Comment[];
    const found = comments.find((comment) => comment.body?.startsWith(marker) && forge.isOurs(comment));
    if (found || comments.length < pageSize) return found?.id;
  }
}

async function call({ api, headers }: Forge, method: string, path: string, body?: object): Promise<unknown> {
  const response = await fetch(`${api}${path}`, {
    method,
    headers: { ...headers, "content-type": "application/json", "user-agent": "contrast-runtime" },
    ...(body && { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(30_000),
  });
  const text = await response.text();
  if (!response.ok) {
    throw new Refusal("forge", `${method} ${api}${path} answered ${response.status}: ${text.slice(0, 300)}`);
  }
  return text === "" ? undefined : JSON.parse(text);
}
