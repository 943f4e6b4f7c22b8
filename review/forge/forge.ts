import { readFileSync } from "node:fs";
import * as z from "zod";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { isPrivate } from "../../runtime/web-address.ts";

/** GitHub or GitLab, as a job of it is told of it. */
export interface Forge {
  kind: "github" | "gitlab";
  /** Address of the API, without a slash at its end: https, or on this machine. */
  api: string;
  /** With the token: they are sent to `api` and nowhere else. */
  headers: Record<string, string>;
  /** The path that everything of this repository or project is below. */
  project: string;
  /** A variable of the job. Throws a Refusal where it is not set. */
  need: (name: string) => string;
}

const pageSize = 100;

/** Of an answer or an artifact: a thousand times what a large one has. */
const largest = 64 << 20;

/** Of a list: nobody reads a request with more. */
const mostPages = 100;

const mostRedirects = 5;

const advice: Record<string, string> = {
  GITHUB_TOKEN: "give the step the workflow's token (github.token)",
  GITLAB_TOKEN:
    "make a project access token, with scope read_api for approvals or api for notes, and store it as a masked variable of this job's environment",
  CI_MERGE_REQUEST_IID: "let the job run in merge request pipelines only",
};

/** The forge that a job runs in, from the variables that it sets. Throws a Refusal that names the missing one. */
export function forgeOf(env: NodeJS.ProcessEnv): Forge {
  const need = (name: string): string => {
    const value = env[name];
    if (value) return value;
    throw new Refusal(
      "no-forge",
      `The variable ${name} is not set: ${advice[name] ?? "run this in a job of the forge"}.`,
    );
  };
  const address = (name: string): string => {
    const value = need(name);
    const url = URL.canParse(value) ? new URL(value) : undefined;
    const { username = "", password = "", search = "", hash = "" } = url ?? {};
    if (url && isPrivate(url) && /^https?:$/.test(url.protocol) && username + password + search + hash === "") {
      return url.href.replace(/\/+$/, "");
    }
    throw new Refusal(
      "forge",
      `${name} is "${printable(value, 200)}". It must be the https address of the forge's API (plain http on this machine only), because the token is sent there.`,
    );
  };
  if (env.GITHUB_ACTIONS) {
    return {
      kind: "github",
      api: address("GITHUB_API_URL"),
      headers: { authorization: `Bearer ${need("GITHUB_TOKEN")}`, accept: "application/vnd.github+json" },
      project: `/repos/${need("GITHUB_REPOSITORY")}`,
      need,
    };
  }
  if (env.GITLAB_CI) {
    return {
      kind: "gitlab",
      api: address("CI_API_V4_URL"),
      headers: { "private-token": need("GITLAB_TOKEN") },
      project: `/projects/${need("CI_PROJECT_ID")}`,
      need,
    };
  }
  throw new Refusal("no-forge", "Neither GITHUB_ACTIONS nor GITLAB_CI is set: run this in a job of GitHub or GitLab.");
}

const event = z.object({
  pull_request: z.object({ number: z.number(), head: z.object({ sha: z.string() }).optional() }).optional(),
});

/** The pull request that a workflow of GitHub was started by. */
export function pullRequestOf(eventFile: string): { number: number; head?: string | undefined } | undefined {
  const { pull_request: request } = event.parse(JSON.parse(readFileSync(eventFile, "utf8")));
  return request && { number: request.number, head: request.head?.sha };
}

/** The answer to a question, as the schema has it. Throws a Refusal for every other answer. */
export async function ask<T>(forge: Forge, path: string, schema: z.ZodType<T>): Promise<T> {
  return understood(forge, path, schema, await call(forge, "GET", path));
}

/** All entries of a list, a page at a time. `list` says where they are in an answer that is not the list itself. */
export async function askAll<T>(forge: Forge, path: string, entry: z.ZodType<T>, list?: string): Promise<T[]> {
  const array = z.array(entry);
  const schema = list === undefined ? array : z.object({ [list]: array }).transform((each) => each[list] as T[]);
  const all: T[] = [];
  for (let page = 1; page <= mostPages; page += 1) {
    const place = `${path}${path.includes("?") ? "&" : "?"}per_page=${pageSize}&page=${page}`;
    const entries = await ask(forge, place, schema);
    all.push(...entries);
    if (entries.length < pageSize) return all;
  }
  throw new Refusal("forge", `GET ${forge.api}${path} answered more than ${mostPages} pages of ${pageSize}.`);
}

/** Sends something to be stored. */
export async function tell(forge: Forge, method: string, path: string, body: object): Promise<void> {
  await call(forge, method, path, body);
}

/**
 * A file, such as an artifact. A forge keeps those elsewhere and sends on to an address that is signed for them: that is
 * followed, without the token.
 */
export async function fetchFile(forge: Forge, path: string): Promise<Buffer> {
  return await request(forge, "GET", path, undefined, mostRedirects);
}

async function call(forge: Forge, method: string, path: string, body?: object): Promise<unknown> {
  const text = (await request(forge, method, path, body)).toString();
  if (text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    throw new Refusal("forge", `${method} ${forge.api}${path} answered no JSON: ${printable(text, 300)}`);
  }
}

/** @param redirects how many are followed */
async function request(forge: Forge, method: string, path: string, body?: object, redirects = 0): Promise<Buffer> {
  const what = `${method} ${forge.api}${path}`;
  let url = new URL(`${forge.api}${path}`);
  let headers: Record<string, string> = { ...forge.headers, "content-type": "application/json" };
  const signal = AbortSignal.timeout(60_000);
  try {
    for (let left = redirects; ; left -= 1) {
      const response = await fetch(url, {
        method,
        headers: { ...headers, "user-agent": "contrast-runtime" },
        // fetch would take every header but Authorization along, to whatever address.
        redirect: "manual",
        ...(body && { body: JSON.stringify(body) }),
        signal,
      });
      const location = response.headers.get("location");
      if (location !== null && response.status >= 300 && response.status < 400) {
        await response.body?.cancel();
        url = sentOn(what, location, url, left);
        headers = {};
        continue;
      }
      const answer = await bounded(response, what);
      if (response.ok) return answer;
      throw new Refusal("forge", `${what} answered ${response.status}: ${printable(answer.toString(), 300)}`);
    }
  } catch (error) {
    if (error instanceof Refusal) throw error;
    const { message, cause } = error as Error;
    throw new Refusal("forge", `${what} failed: ${message} (${(cause as Error)?.message ?? "no cause"}).`);
  }
}

function sentOn(what: string, location: string, from: URL, left: number): URL {
  const next = URL.canParse(location, from.href) ? new URL(location, from) : undefined;
  const to = `sends on to ${next ? next.origin : `"${printable(location, 200)}"`}`;
  if (left <= 0) {
    throw new Refusal(
      "forge",
      `${what} ${to}, which is not followed. If the repository was renamed or moved, run this in a job of the new one.`,
    );
  }
  // Plain http to this machine is for a forge on this machine only.
  if (next?.protocol === "https:") return next;
  if (next?.protocol === "http:" && from.protocol === "http:" && isPrivate(next)) return next;
  throw new Refusal("forge", `${what} ${to}, which is no https address: refused.`);
}

async function bounded(response: Response, what: string): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > largest) throw new Refusal("forge", `${what} answered more than ${largest} bytes.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function understood<T>({ api }: Forge, path: string, schema: z.ZodType<T>, answer: unknown): T {
  const parsed = schema.safeParse(answer);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new Refusal(
    "forge",
    `GET ${api}${path} answered something else than this version of contrast-runtime reads (${issue?.path.join(".")}: ${issue?.message}).`,
    { cause: parsed.error },
  );
}
