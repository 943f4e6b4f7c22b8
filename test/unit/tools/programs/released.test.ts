import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { sha256 } from "../../../../runtime/canonical.ts";
import { engineDigests } from "../../../../tools/engine/engine.ts";
import { engineVersion } from "../../../../tools/engine/versions.ts";
import { containerdDigests, containerdRelease, kubernetesRelease } from "../../../../tools/programs/pinned.ts";
import { mirrored, type Release, releasedOr } from "../../../../tools/programs/released.ts";
import { shownWords } from "../../../shown-commands.ts";

const clone = join(import.meta.dirname, "..", "..", "..", "..");
const program = Buffer.from("#!/bin/sh\necho one\n");

type Handler = (request: IncomingMessage, response: ServerResponse) => void;
let directory: string;
let server: Server;
let address: string;
/** The mirror's files, by path. */
let files: Map<string, Buffer>;
let handler: Handler;
let asked: string[];
let said: string[];
let release: Release;

const serve: Handler = (request, response) => {
  const file = files.get(request.url ?? "");
  if (file === undefined) response.writeHead(404).end();
  else response.writeHead(200, { "content-length": file.length }).end(file);
};

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "released-"));
  vi.stubEnv("XDG_CACHE_HOME", join(directory, "cache"));
  handler = serve;
  asked = [];
  said = [];
  server = createServer((request, response) => {
    asked.push(request.url ?? "");
    handler(request, response);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  vi.stubEnv("CONTRAST_RUNTIME_MIRROR", `${address}/all/`);
  // A program by itself, and an archive with two below a folder, as the projects have them.
  for (const name of ["two", "three", "four"]) {
    await mkdir(join(directory, "tree", "bin"), { recursive: true });
    await writeFile(join(directory, "tree", "bin", name), name, { mode: 0o755 });
  }
  const archive = join(directory, "archive");
  await promisify(execFile)("tar", ["-czf", archive, "-C", join(directory, "tree"), "bin"]);
  const packed = await readFile(archive);
  files = new Map([
    ["/all/dl.k8s.io/v1/bin/one", program],
    ["/all/github.com/a/b/releases/download/v1/two.tar.gz", packed],
  ]);
  release = {
    name: "example",
    version: "1",
    programs: ["one", "usr/bin/two"],
    files: [
      { url: "https://dl.k8s.io/v1/bin/one", sha256: sha256(program), to: "one" },
      {
        url: "https://github.com/a/b/releases/download/v1/two.tar.gz",
        sha256: sha256(packed),
        to: "usr/bin",
        members: ["bin/two", "bin/three"],
      },
    ],
  };
});
afterEach(async () => {
  vi.unstubAllEnvs();
  server.close();
  server.closeAllConnections();
  await rm(directory, { recursive: true });
});

const built = vi.fn(async () => "built");
beforeEach(() => built.mockClear());
const get = (isThere = false) =>
  releasedOr(release, { isThere: async () => isThere, make: built }, (line) => said.push(line));

test("programs come from the mirror in the projects' own layout, once, and can be started", async () => {
  const place = await get();
  expect(await promisify(execFile)(join(place, "one"))).toMatchObject({ stdout: "one\n" });
  expect((await readdir(join(place, "usr/bin"))).sort()).toEqual(["three", "two"]);
  expect((await stat(join(place, "usr/bin/two"))).mode & 0o777).toBe(0o755);
  expect(asked.sort()).toEqual([...files.keys()]);
  expect(await get()).toBe(place);
  expect([asked.length, built.mock.calls.length]).toEqual([2, 0]);
  // What was unpacked or moved is not there a second time.
  expect(await readdir(join(directory, "cache/contrast-runtime/downloads"))).toEqual([]);
});

test("what was built before is used, and no server is asked", async () => {
  expect(await get(true)).toBe("built");
  expect([asked, said]).toEqual([[], []]);
});

test("a program without a published digest is built without a word", async () => {
  expect(await releasedOr(undefined, { isThere: async () => false, make: built }, (line) => said.push(line))).toBe(
    "built",
  );
  expect([asked, said]).toEqual([[], []]);
});

/** Answers as `handler` says for the program, and as a mirror should for the archive. */
const forOne =
  (answer: Handler): Handler =>
  (request, response) =>
    (request.url?.endsWith("/one") ? answer : serve)(request, response);

describe("what cannot be had as it was released is built, after one sentence:", () => {
  const cases: [string, Handler, RegExp][] = [
    [
      "another file",
      forOne((_, response) => response.end("another")),
      /has the SHA-256 [0-9a-f]{64}, but \w+ was expec/,
    ],
    ["no file", forOne((_, response) => response.writeHead(404).end()), /the server answered 404/],
    ["a login", forOne((_, response) => response.writeHead(403).end("<html>")), /the server answered 403/],
    ["an error", forOne((_, response) => response.writeHead(503).end()), /the server answered 503/],
    [
      "a page that a captive network puts in between",
      forOne((_, response) => response.writeHead(302, { location: "/login" }).end()),
      /the server answered 404/,
    ],
    ["a server that hangs up", forOne((request) => request.socket.destroy()), /socket hang up|ECONNRESET/],
    ["a server that accepts and says nothing", forOne(() => {}), /no byte for 5 s/],
    [
      "a server that begins and says nothing more",
      forOne((_, response) => response.writeHead(200, { "content-length": 999 }).flushHeaders()),
      /no byte for 5 s/,
    ],
  ];
  test.each(cases)("%s", async (_, answer, cause) => {
    handler = answer;
    expect(await get()).toBe("built");
    expect(said.filter((line) => /^example 1 is not taken as its project released it: /.test(line))).toEqual([
      expect.stringMatching(cause),
    ]);
    expect(said.filter((line) => /interrupted/.test(line))).toEqual([]);
    expect(await readdir(join(directory, "cache/contrast-runtime/programs"))).toEqual([]);
  });

  test("nobody at that address, or no such name", async () => {
    for (const mirror of ["http://127.0.0.1:1", "http://mirror.invalid"]) {
      vi.stubEnv("CONTRAST_RUNTIME_MIRROR", mirror);
      expect(await get()).toBe("built");
    }
    expect(said.filter((line) => /ECONNREFUSED|ENOTFOUND|EAI_AGAIN/.test(line))).toHaveLength(2);
  });

  test("an archive without the program", async () => {
    release.files[1]?.members?.push("bin/five");
    expect(await get()).toBe("built");
    expect(said.at(-1)).toMatch(/^example 1 is not taken .*tar .*failed/);
    release.files[1]?.members?.pop();
    release.programs.push("usr/bin/four");
    expect(await get()).toBe("built");
    expect(said.at(-1)).toMatch(/was released without usr\/bin\/four\.$/);
  });
});

test("a download that breaks off in the middle goes on where it stopped", async () => {
  const content = randomBytes(3_000_000);
  release.files = [{ url: "https://dl.k8s.io/v1/bin/one", sha256: sha256(content), to: "one" }];
  release.programs = ["one"];
  handler = (request, response) => {
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    const headers = { "content-length": content.length - start, etag: '"a"' };
    if (asked.length > 1) {
      const range = `bytes ${start}-${content.length - 1}/${content.length}`;
      response.writeHead(206, { ...headers, "content-range": range }).end(content.subarray(start));
    } else response.writeHead(200, headers).write(content.subarray(0, 2_000_000), () => response.destroy());
  };
  expect(await readFile(join(await get(), "one"))).toEqual(content);
  expect([asked.length, built.mock.calls.length]).toEqual([2, 0]);
});

test("with a proxy, the mirror is asked through it", async () => {
  const script = `
    import { releasedOr } from ${JSON.stringify(join(clone, "tools/programs/released.ts"))};
    const make = async () => { throw new Error("not through the proxy"); };
    console.log(await releasedOr(${JSON.stringify(release)}, { isThere: async () => false, make }, () => {}));`;
  handler = (request, response) => {
    files.set("/", files.get("/") ?? Buffer.alloc(0));
    request.url = request.url?.replace("http://mirror.invalid", "/all") ?? "";
    serve(request, response);
  };
  const env = { ...process.env, HTTP_PROXY: address, NO_PROXY: "", CONTRAST_RUNTIME_MIRROR: "http://mirror.invalid" };
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script], { env });
  expect(await readFile(join(stdout.trim(), "one"))).toEqual(program);
  expect(asked.every((path) => path.startsWith("http://mirror.invalid/"))).toBe(true);
});

test("the mirror that the documents show is asked for the path that they show", async () => {
  const [variable = "", mirror] =
    shownWords("docs/platforms.md", "export CONTRAST_RUNTIME_MIRROR")[0]?.split("=") ?? [];
  const path = "dl.k8s.io/v1.36.3/bin/linux/amd64/kubelet";
  expect(await readFile(join(clone, "docs/platforms.md"), "utf8")).toContain(`# …/${path}\n`);
  expect(mirrored(`https://${path}`, { [variable]: mirror })).toBe(`https://mirror.example/releases/${path}`);
});

test("a mirror that is no address is refused; without one, the projects themselves are asked", () => {
  const url = "https://dl.k8s.io/v1/bin/one";
  expect(() => mirrored(url, { CONTRAST_RUNTIME_MIRROR: "mirror.example" })).toThrow(
    /^CONTRAST_RUNTIME_MIRROR is "mirror\.example", which is no web address\. Set it to/,
  );
  expect(mirrored(url, { CONTRAST_RUNTIME_MIRROR: "https://mirror.example/a/" })).toBe(
    "https://mirror.example/a/dl.k8s.io/v1/bin/one",
  );
  for (const env of [{}, { CONTRAST_RUNTIME_MIRROR: "" }]) expect(mirrored(url, env)).toBe(url);
});

describe("the pinned releases are of the versions that would be built:", () => {
  const moduleOf = (name: string) => readFile(join(clone, "tools/programs/modules", name, "go.mod"), "utf8");

  test("Kubernetes and etcd", async () => {
    const text = await moduleOf("kubernetes");
    const etcd = kubernetesRelease.files.find(({ url }) => url.includes("/etcd/"));
    expect(text).toContain(`k8s.io/kubernetes v${kubernetesRelease.version}\n`);
    expect(etcd?.url).toContain(`/${/go\.etcd\.io\/etcd\/server\/v3 (v\S+)/.exec(text)?.[1]}/`);
    expect(kubernetesRelease.files.map(({ to }) => to)).toEqual([...kubernetesRelease.programs.slice(1), "."]);
  });

  test("containerd", async () => {
    for (const version of Object.keys(containerdDigests)) {
      expect(await moduleOf(`containerd-${version}`)).toContain(`github.com/containerd/containerd/v2 v${version}`);
      expect(containerdRelease(version)?.files[0]?.url).toContain(
        `/v${version}/containerd-${version}-linux-amd64.tar.gz`,
      );
    }
  });

  test("Pulumi", () => {
    expect(engineDigests.version).toBe(engineVersion);
    expect(Object.values(engineDigests.platforms)).toEqual(Array(4).fill(expect.stringMatching(/^[0-9a-f]{64}$/)));
  });
});
