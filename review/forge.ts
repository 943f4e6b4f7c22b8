import { readFileSync } from "node:fs";
import { z } from "zod";
import { Refusal } from "../node-installer/runtime/refusal.ts";

/** GitHub or GitLab, as a job of it is told of it. */
export interface Forge {
  kind: "github" | "gitlab";
  /** Address of the API, without a slash at its end. */
  api: string;
  headers: Record<string, string>;
  /** The path that everything of this repository or project is below. */
  project: string;
  /** A variable of the job. Throws a Refusal where it is not set. */
  need: (name: string) => string;
}

const pageSize = 100;
/** Of an answer or an artifact: a thousand times what a large one has. */
const largest = 64 << 20;

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
  if (env.GITHUB_ACTIONS) {
    return {
      kind: "github",
      api: need("GITHUB_API_URL"),
      headers: { authorization: `Bearer ${need("GITHUB_TOKEN")}`, accept: "application/vnd.github+json" },
      project: `/repos/${need("GITHUB_REPOSITORY")}`,
      need,
    };
  }
  if (env.GITLAB_CI) {
    return {
      kind: "gitlab",
      api: need("CI_API_V4_URL"),
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
  for (let page = 1; ; page += 1) {
    const place = `${path}${path.includes("?") ? "&" : "?"}per_page=${pageSize}&page=${page}`;
    const entries = await ask(forge, place, schema);
    all.push(...entries);
    if (entries.length < pageSize) return all;
  }
}

/** Sends something to be stored. */
export async function tell(forge: Forge, method: string, path: string, body: object): Promise<void> {
  await call(forge, method, path, body);
}

/** A file, such as an artifact. */
export async function fetchFile(forge: Forge, path: string): Promise<Buffer> {
  return await request(forge, "GET", path);
}

async function call(forge: Forge, method: string, path: string, body?: object): Promise<unknown> {
  const text = (await request(forge, method, path, body)).toString();
  if (text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    throw new Refusal("forge", `${method} ${forge.api}${path} answered no JSON: ${text.slice(0, 300)}`);
  }
}

async function request({ api, headers }: Forge, method: string, path: string, body?: object): Promise<Buffer> {
  let response: Response;
  try {
    response = await fetch(`${api}${path}`, {
      method,
      headers: { ...headers, "content-type": "application/json", "user-agent": "contrast-runtime" },
      ...(body && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(60_000),
    });
  } catch (error) {
    const { message, cause } = error as Error;
    throw new Refusal(
      "forge",
      `${method} ${api}${path} failed: ${message} (${(cause as Error)?.message ?? "no cause"}).`,
    );
  }
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > largest) throw new Refusal("forge", `${method} ${api}${path} answered more than ${largest} bytes.`);
    chunks.push(chunk);
  }
  const answer = Buffer.concat(chunks);
  if (response.ok) return answer;
  throw new Refusal("forge", `${method} ${api}${path} answered ${response.status}: ${answer.toString().slice(0, 300)}`);
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
