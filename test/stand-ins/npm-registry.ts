import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import * as z from "zod";

/** What `npm publish` sends: the package's document with the archive in it. */
const publication = z.looseObject({
  name: z.string(),
  "dist-tags": z.record(z.string(), z.string()),
  versions: z.record(z.string(), z.looseObject({})),
  _attachments: z.record(z.string(), z.looseObject({ data: z.string() })),
});

export interface NpmRegistry {
  url: string;
  /** Archives by file name, as they were published. */
  archives: Map<string, Buffer>;
  /** "METHOD path" of each request. */
  requests: string[];
  stop(): Promise<void>;
}

/** An npm registry that takes packages from whoever has the token, each version once, and gives them to everybody. */
export async function startNpmRegistry(token: string): Promise<NpmRegistry> {
  const archives = new Map<string, Buffer>();
  const documents = new Map<string, z.output<typeof publication>>();
  const requests: string[] = [];
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent((request.url ?? "/").slice(1).replace(/\?.*/s, ""));
    requests.push(`${request.method} /${path}`);
    const answer = (status: number, body: object | Buffer) =>
      response.writeHead(status).end(Buffer.isBuffer(body) ? body : JSON.stringify(body));
    if (request.method === "PUT") {
      if (request.headers.authorization !== `Bearer ${token}`) return answer(401, { error: "who are you?" });
      const { _attachments: attachments, ...document } = publication.parse(JSON.parse(await textOf(request)));
      const known = documents.get(path);
      if (Object.keys(document.versions).some((version) => known?.versions[version] !== undefined))
        return answer(403, { error: "You cannot publish over the previously published versions." });
      for (const [name, { data }] of Object.entries(attachments)) archives.set(name, Buffer.from(data, "base64"));
      documents.set(path, { ...document, _attachments: {}, versions: { ...known?.versions, ...document.versions } });
      return answer(201, { ok: true });
    }
    const archive = archives.get(path.replace(/^.*\/-\//, ""));
    if (path.includes("/-/")) return archive === undefined ? answer(404, {}) : answer(200, archive);
    const document = documents.get(path);
    return document === undefined ? answer(404, { error: "not found" }) : answer(200, document);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url,
    archives,
    requests,
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

async function textOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
