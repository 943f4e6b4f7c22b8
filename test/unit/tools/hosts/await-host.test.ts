import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { awaitHost } from "../../../../tools/hosts/await-host.ts";

const address = "127.0.0.1";
const servers: Server[] = [];
const sockets: Socket[] = [];

/** A server that does this with each connection; returns its port. */
async function serve(answer: (socket: Socket) => void, port = 0): Promise<number> {
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => undefined);
    answer(socket);
  });
  servers.push(server);
  await new Promise<void>((listening) => server.listen(port, address, listening));
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw new Error("no port");
  return bound.port;
}

const said: string[] = [];
vi.spyOn(console, "log").mockImplementation((line: string) => void said.push(line));
vi.stubEnv("SSH_AUTH_SOCK", "");

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) server.close();
  said.length = 0;
});

test("a host whose SSH server answers is told with the key that is expected of it", async () => {
  const port = await serve((socket) => socket.write("Welcome.\r\nSSH-2.0-OpenSSH_10.0\r\n"));
  expect(await awaitHost({ address, port, fingerprint: "SHA256:abc", seconds: 5 })).toBe(0);
  expect(said).toEqual([
    `${address}:${port} answers as SSH-2.0-OpenSSH_10.0. Its host key must be SHA256:abc: where it says "host key mismatch" next, somebody else answers.`,
  ]);
});

test.each<[string, (socket: Socket) => void, string]>([
  ["accepts the connection and says nothing", () => undefined, "it accepts the connection and says nothing"],
  ["is something else", (socket) => socket.write("x".repeat(9_000)), "what answers there is no SSH server"],
  ["ends the connection", (socket) => socket.end(), "it ends the connection without an answer"],
])("a host that %s is given up when the time is over", async (_what, answer, why) => {
  const port = await serve(answer);
  await expect(awaitHost({ address, port, seconds: 1 })).rejects.toMatchObject({
    code: "host-silent",
    message: expect.stringContaining(`has not answered for 1 s: ${why}. Start the host, or its sshd.`),
  });
});

test("a host that starts is waited for", async () => {
  const port = await serve((socket) => socket.end());
  servers.splice(0).forEach((server) => void server.close());
  const waiting = awaitHost({ address, port, seconds: 60 });
  await vi.waitFor(() => expect(said).toHaveLength(1), 10_000);
  await serve((socket) => socket.write("SSH-2.0-x\n"), port);
  expect(await waiting).toBe(0);
  expect(said[0]).toContain("does not answer yet: connect ECONNREFUSED");
});

test("an agent's socket that leads nowhere is named, because no command would run", async () => {
  const socket = join(import.meta.dirname, "no-agent");
  vi.stubEnv("SSH_AUTH_SOCK", socket);
  await expect(awaitHost({ address, port: 1, seconds: 1 })).rejects.toMatchObject({
    code: "no-ssh-agent",
    message: expect.stringContaining(`SSH_AUTH_SOCK is ${socket}, where no SSH agent answers`),
  });
  vi.stubEnv("SSH_AUTH_SOCK", "");
});
