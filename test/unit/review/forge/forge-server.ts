import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach } from "vitest";
import { canonical, type Source } from "../../../../review/approval/form.ts";
import { type DocumentStep, summaryOf } from "../documents.ts";

/** What a server that speaks for a forge answers, by path; each test changes one answer of a request that is in order. */
interface ForgeServer {
  answers: Record<string, unknown>;
  asked: { path: string; headers: IncomingHttpHeaders }[];
  /** Its URL. */
  address: string;
}

/** A server that answers lists in pages as the forges' APIs do, and 404 where nothing is known. New before each test. */
export function useForgeServer(): ForgeServer {
  const forge: ForgeServer = { answers: {}, asked: [], address: "not started" };
  let server: Server;
  beforeEach(async () => {
    [forge.answers, forge.asked] = [{}, []];
    server = createServer((request, response) => {
      const { pathname, searchParams } = new URL(request.url ?? "/", "http://x");
      forge.asked.push({ path: pathname, headers: request.headers });
      const answer = forge.answers[pathname];
      if (answer === undefined) return response.writeHead(404).end('{"message":"Not Found"}');
      if (Buffer.isBuffer(answer) || typeof answer === "string") return response.end(answer);
      const [size, page] = [Number(searchParams.get("per_page") ?? 100), Number(searchParams.get("page") ?? 1)];
      return response.end(JSON.stringify(pageOf(answer, (page - 1) * size, page * size)));
    }).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    forge.address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterEach(() => {
    server.close();
  });
  return forge;
}

function pageOf(answer: unknown, from: number, to: number): unknown {
  if (Array.isArray(answer)) return answer.slice(from, to);
  return Object.fromEntries(
    Object.entries(answer as object).map(([key, value]) => [key, Array.isArray(value) ? value.slice(from, to) : value]),
  );
}

/** The request's last commit, and what the forge merged it as. */
export const head = "a".repeat(40);
export const merge = { commit: "f".repeat(40), branch: "main" };

export const remove = (name: string): DocumentStep => ({
  op: "delete",
  type: "kubernetes:core/v1:Namespace",
  name,
  before: {},
});

/** The canonical form of a preview, which the reviewers' job stored. */
export const formOf = (source: Partial<Source>, ...steps: DocumentStep[]) =>
  canonical(summaryOf(...(steps.length > 0 ? steps : [remove("n")])), {
    request: 7,
    commit: head,
    run: "50",
    attempt: "1",
    ...source,
  });
