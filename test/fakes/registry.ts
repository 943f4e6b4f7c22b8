/* A registry in memory: images of a configuration and two layers, by tag and by digest. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { gzipSync } from "node:zlib";
import { sha256 } from "../../runtime/canonical.ts";
import { manifestType } from "../../tools/oci/documents.ts";
import { tar } from "../../tools/oci/tar.ts";

/** What the upper layer of each image has of its users. */
const users = {
  passwd: "root:x:0:0:root:/root:/bin/sh\napp:x:101:102::/:/bin/false\n",
  group: "root:x:0:root\nweb:x:102:\nfiles:x:103:app\n",
};

export interface FakeRegistry {
  /** "127.0.0.1:5000" */
  host: string;
  /** What was asked for, such as "GET /v2/app/manifests/1". */
  asked: string[];
  /** Adds an image or replaces the one of its tag; returns its digest. Of the lower layer there is only the size. */
  push: (repository: string, tag: string, config?: object, lowerSize?: number) => string;
  /** From now on every request is answered with this. */
  refuse: (status: number) => void;
  close: () => Promise<void>;
}

export async function fakeRegistry(): Promise<FakeRegistry> {
  const content = new Map<string, string | Buffer>();
  const upper = gzipSync(
    await buffer(
      tar(
        Object.entries(users).map(([name, text]) => ({
          path: `etc/${name}`,
          mode: 0o644,
          type: "file",
          content: text,
        })),
      ),
    ),
  );
  const upperDigest = `sha256:${sha256(upper)}`;
  const asked: string[] = [];
  let refusal: number | undefined;
  const server = createServer(({ method, url = "" }, response) => {
    asked.push(`${method} ${url}`);
    const found = content.get(url);
    if (refusal !== undefined) response.writeHead(refusal).end('{"errors":[{"code":"DENIED","message":"no"}]}');
    else if (found === undefined) response.writeHead(404).end('{"errors":[{"code":"MANIFEST_UNKNOWN"}]}');
    else response.writeHead(200, { "content-length": Buffer.byteLength(found) }).end(method === "HEAD" ? "" : found);
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    push: (repository, tag, config = { Cmd: ["/app"] }, lowerSize = 1) => {
      const configuration = JSON.stringify({ architecture: "amd64", os: "linux", config });
      const lower = `sha256:${sha256(`${repository}:${tag}`)}`;
      const mediaType = "application/vnd.oci.image.layer.v1.tar+gzip";
      const manifest = JSON.stringify({
        schemaVersion: 2,
        mediaType: manifestType,
        config: {
          mediaType: "application/vnd.oci.image.config.v1+json",
          digest: `sha256:${sha256(configuration)}`,
          size: Buffer.byteLength(configuration),
        },
        layers: [
          { mediaType, digest: lower, size: lowerSize },
          { mediaType, digest: upperDigest, size: upper.length },
        ],
      });
      const digest = `sha256:${sha256(manifest)}`;
      for (const version of [tag, digest]) content.set(`/v2/${repository}/manifests/${version}`, manifest);
      content.set(`/v2/${repository}/blobs/sha256:${sha256(configuration)}`, configuration);
      content.set(`/v2/${repository}/blobs/${upperDigest}`, upper);
      return digest;
    },
    refuse: (status) => {
      refusal = status;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
