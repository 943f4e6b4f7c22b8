import { createServer, type IncomingMessage, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Repository } from "../../../../tools/oci/registry.ts";

let servers: Server[];
beforeEach(() => {
  servers = [];
  process.env.REGISTRY_USERNAME = "user";
  process.env.REGISTRY_PASSWORD = "hush";
});
afterEach(() => {
  for (const server of servers) server.close();
  delete process.env.REGISTRY_USERNAME;
  delete process.env.REGISTRY_PASSWORD;
});

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  servers.push(server);
  await new Promise((resolve) => server.once("listening", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test("credentials go to the registry, not to another host that it names for an upload", async () => {
  const asked: [string | undefined, string | undefined][] = [];
  const note = ({ url, headers }: IncomingMessage) => void asked.push([url, headers.authorization]);
  const store = await serve((request, response) => {
    note(request);
    response.writeHead(201).end();
  });
  const registry = await serve((request, response) => {
    note(request);
    if (request.headers.authorization === undefined)
      response.writeHead(401, { "www-authenticate": 'Basic realm="r"' }).end();
    else response.writeHead(202, { location: `${store}/upload` }).end();
  });
  const repository = new Repository({ registry, repository: "team/installer" });
  const begin = await repository.send({ method: "POST", path: "blobs/uploads/" }, [202]);
  begin.resume();
  (await repository.send({ method: "PUT", path: new URL(begin.headers.location ?? "") }, [201])).resume();
  const basic = `Basic ${Buffer.from("user:hush").toString("base64")}`;
  expect(asked).toEqual([
    ["/v2/team/installer/blobs/uploads/", undefined],
    ["/v2/team/installer/blobs/uploads/", basic],
    ["/upload", undefined],
  ]);
});
