import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import * as z from "zod";
import { ask, askAll, type Forge, fetchFile, forgeOf, tell } from "../../../../review/forge/forge.ts";

/* To whom a job's token goes, and how much of an answer is read. */

type Answer = (request: IncomingMessage, response: ServerResponse) => void;
const servers: Server[] = [];
/** What each server was sent, by the path that it was asked for. */
let got: Record<string, IncomingMessage["headers"]>;
let answers: Record<string, Answer>;
let address: string;
let elsewhere: string;

async function serve(): Promise<string> {
  const server = createServer((request, response) => {
    const path = (request.url ?? "").split("?")[0] ?? "";
    got[`:${(server.address() as AddressInfo).port}${path}`] = request.headers;
    const answer = answers[path];
    if (answer) answer(request, response);
    else response.writeHead(404).end();
  }).listen(0, "127.0.0.1");
  servers.push(server);
  await new Promise((resolve) => server.once("listening", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

beforeEach(async () => {
  [got, answers] = [{}, {}];
  [address, elsewhere] = [await serve(), await serve()];
});
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
  }
});

const github = (api = address) => ({
  GITHUB_ACTIONS: "true",
  GITHUB_REPOSITORY: "o/r",
  GITHUB_API_URL: api,
  GITHUB_TOKEN: "hush",
});
const gitlab = (api = address) => ({ GITLAB_CI: "true", CI_API_V4_URL: api, CI_PROJECT_ID: "3", GITLAB_TOKEN: "hush" });
const sendOn =
  (location: string, status = 302): Answer =>
  (_, response) =>
    response.writeHead(status, { location }).end();
const at = (origin: string, path: string) => got[`:${new URL(origin).port}${path}`];

describe("the address of the API", () => {
  test.each([
    "https://api.github.com",
    "https://forge.example.com:8443/api/v4/",
    "http://127.0.0.1:3000",
    "http://[::1]:3000/api",
    "http://localhost",
  ])("%s may have the token", (api) => {
    expect(forgeOf(github(api)).api).toBe(api.replace(/\/$/, ""));
    expect(forgeOf(gitlab(api)).api).toBe(api.replace(/\/$/, ""));
  });
  test.each([
    "http://api.github.com",
    "http://127.0.0.1.example.com",
    "http://10.0.0.1",
    "http://localhost.example.com",
    "ftp://127.0.0.1",
    "file:///etc/passwd",
    "https://user:password@api.github.com",
    "https://api.github.com?a=",
    "https://api.github.com?a=b",
    "https://api.github.com#x",
    "//api.github.com",
    "api.github.com",
    " ",
  ])("%j may not", (api) => {
    expect(() => forgeOf(github(api))).toThrow(/GITHUB_API_URL is ".*"\. It must be the https address/);
    expect(() => forgeOf(gitlab(api))).toThrow(/CI_API_V4_URL is ".*"\. It must be the https address/);
  });
});

describe("an answer that sends on", () => {
  const anything = z.unknown();
  test.each<[string, (forge: Forge) => Promise<unknown>]>([
    ["a question", (forge) => ask(forge, "/x", anything)],
    ["a list", (forge) => askAll(forge, "/x", anything)],
    ["what is to be stored", (forge) => tell(forge, "POST", "/x", { body: "words" })],
  ])("is not followed for %s, to no origin", async (_name, call) => {
    for (const env of [github(), gitlab()]) {
      for (const [location, status] of [
        [`${elsewhere}/y`, 302],
        ["/y", 301],
        [`${elsewhere}/y`, 307],
      ] as const) {
        answers = { "/x": sendOn(location, status), "/y": (_request, response) => response.end("[]") };
        await expect(call(forgeOf(env))).rejects.toThrow(/sends on to http:.* which is not followed/);
        expect(Object.keys(got).filter((path) => path.endsWith("/y"))).toEqual([]);
      }
    }
  });

  test.each([
    ["GitHub", github, "authorization"],
    ["GitLab", gitlab, "private-token"],
  ])("%s: is followed for a file, without the token", async (_name, env, header) => {
    answers = {
      "/file": sendOn(`${elsewhere}/store?signature=s`),
      "/store": sendOn("/moved"),
      "/moved": (_request, response) => response.end("content"),
    };
    expect((await fetchFile(forgeOf(env()), "/file")).toString()).toBe("content");
    expect(at(address, "/file")?.[header]).toContain("hush");
    for (const path of ["/store", "/moved"]) expect(JSON.stringify(at(elsewhere, path))).not.toContain("hush");
  });

  test.each([
    ["http://store.example.com/x", "sends on to http://store.example.com, which is no https address"],
    ["file:///etc/passwd", "which is no https address"],
    ["https://", 'sends on to "https://", which is no https address'],
  ])("to %s is refused for a file, too", async (location, sentence) => {
    answers = { "/file": sendOn(location) };
    await expect(fetchFile(forgeOf(github()), "/file")).rejects.toThrow(sentence);
  });

  test("in a circle ends", async () => {
    answers = { "/file": sendOn("/file") };
    await expect(fetchFile(forgeOf(github()), "/file")).rejects.toThrow("which is not followed");
  });
});

describe("an answer's size", () => {
  test("a list that never ends is given up", async () => {
    let asked = 0;
    const page = JSON.stringify(Array.from({ length: 100 }, () => 1));
    answers = {
      "/list": (_request, response) => {
        asked += 1;
        response.end(page);
      },
    };
    await expect(askAll(forgeOf(github()), "/list", z.number())).rejects.toThrow("more than 100 pages of 100");
    expect(asked).toBe(100);
  });

  test("a file that never ends is given up", async () => {
    const chunk = Buffer.alloc(1 << 20);
    answers = {
      "/file": (_request, response) => {
        const write = () => {
          while (!response.destroyed && response.write(chunk));
        };
        response.on("drain", write);
        write();
      },
    };
    await expect(fetchFile(forgeOf(github()), "/file")).rejects.toThrow("answered more than 67108864 bytes");
  });

  test("of an error one printable line is told", async () => {
    answers = {
      "/x": (_request, response) => response.writeHead(500).end(`a\n::set-output\u001b[31m${"b".repeat(1000)}`),
    };
    const error = await ask(forgeOf(github()), "/x", z.unknown()).catch((problem: Error) => problem);
    expect((error as Error).message).toMatch(/^GET http.* answered 500: a ::set-outputb{200,300}…$/);
  });

  test("one that breaks off is told", async () => {
    answers = {
      "/x": (_request, response) => {
        response.writeHead(200, { "content-length": "100" }).write("[");
        setImmediate(() => response.destroy());
      },
    };
    await expect(ask(forgeOf(github()), "/x", z.unknown())).rejects.toThrow(/^GET http.*\/x failed: /);
  });
});
