import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer as createHttp2Server } from "node:http2";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type handleUnaryCall, Server, ServerCredentials, status } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { grpcCodes, unaryCall } from "../../../../node-installer/containerd/grpc.ts";

let directory: string;
let socket: string;
const ends: (() => void)[] = [];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "grpc-"));
  socket = join(directory, "s.sock");
});
afterEach(() => {
  for (const end of ends.splice(0)) end();
  rmSync(directory, { recursive: true });
});

const bytes = (value: Buffer): Buffer => value;

/** A server of gRPC's own package with one method on plain bytes. */
async function serve(answer: handleUnaryCall<Buffer, Buffer>): Promise<Server> {
  const server = new Server();
  const codec = {
    requestSerialize: bytes,
    requestDeserialize: bytes,
    responseSerialize: bytes,
    responseDeserialize: bytes,
  };
  const method = { path: "/test.Service/Call", requestStream: false, responseStream: false, ...codec } as const;
  server.addService({ call: method }, { call: answer });
  await new Promise<void>((resolve, reject) =>
    server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) =>
      error === null ? resolve() : reject(error),
    ),
  );
  ends.push(() => server.forceShutdown());
  return server;
}

async function listen(server: ReturnType<typeof createServer> | ReturnType<typeof createHttp2Server>): Promise<void> {
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  ends.push(() => server.close());
}

const call = (message = Buffer.from("question"), timeoutMs = 60_000) =>
  unaryCall(socket, "/test.Service/Call", message, timeoutMs);

describe("a server of gRPC's own package", () => {
  test.each([0, 1, 70_000, 4_000_000])("is told %d bytes, and its answer of as many arrives", async (length) => {
    await serve(({ request }, answer) => answer(null, Buffer.concat([request, Buffer.from("!")])));
    const message = Buffer.alloc(length, "abc");
    expect((await call(message)).equals(Buffer.concat([message, Buffer.from("!")]))).toBe(true);
  });

  test.each([
    ["unimplemented", status.UNIMPLEMENTED, "unknown service runtime.v1.RuntimeService"],
    ["unknown", status.UNKNOWN, "rpc error: 100 % “quoted”\nand on two lines"],
    ["unavailable", status.UNAVAILABLE, "shutting down"],
  ])("refuses: %s", async (_, code, details) => {
    await serve((_call, answer) => answer({ code, details }));
    await expect(call()).rejects.toMatchObject({ name: "GrpcError", code, message: details });
  });

  test("that does not answer in time is not waited for, and learns that nobody waits any more", async () => {
    const cancelled = Promise.withResolvers<void>();
    await serve((one) => one.on("cancelled", () => cancelled.resolve()));
    await expect(call(Buffer.alloc(0), 100)).rejects.toMatchObject({
      code: grpcCodes.deadlineExceeded,
      message: "no answer within 100 ms",
    });
    await cancelled.promise;
  });

  test("that ends during a call", async () => {
    const server = await serve(() => server.forceShutdown());
    await expect(call()).rejects.toMatchObject({ code: grpcCodes.unavailable });
  });

  test("whose answer is longer than what containerd ever sends", async () => {
    await serve((_call, answer) => answer(null, Buffer.alloc((16 << 20) + 1)));
    await expect(call()).rejects.toMatchObject({
      code: grpcCodes.resourceExhausted,
      message: "the answer is longer than 16777216 bytes",
    });
  });
});

describe("nobody listens", () => {
  test("no socket", () => expect(call()).rejects.toMatchObject({ code: grpcCodes.unavailable, message: "ENOENT" }));

  test("the socket of a server that was killed", async () => {
    const listener = 'require("node:net").createServer().listen(process.argv[1], () => process.kill(process.pid, 9))';
    spawnSync(process.execPath, ["-e", listener, socket]);
    await expect(call()).rejects.toMatchObject({ code: grpcCodes.unavailable, message: "ECONNREFUSED" });
  });
});

describe("what is no gRPC server", () => {
  test("one that closes each connection", async () => {
    await listen(createServer((one) => one.destroy()));
    await expect(call()).rejects.toMatchObject({ code: grpcCodes.unavailable });
  });

  test("one that speaks something else", async () => {
    await listen(createServer((one) => one.end("HTTP/1.1 400 Bad Request\r\n\r\n")));
    await expect(call()).rejects.toMatchObject({ code: grpcCodes.unavailable });
  });

  test("one that ends in the middle of its answer", async () => {
    const partly = Promise.withResolvers<() => void>();
    const server = createHttp2Server();
    server.on("stream", (stream) => {
      stream.on("error", () => undefined);
      stream.respond({ ":status": 200, "content-type": "application/grpc" });
      stream.write(Buffer.from([0, 0]));
      partly.resolve(() => stream.session?.destroy());
    });
    await listen(server);
    const answer = call();
    (await partly.promise)();
    await expect(answer).rejects.toMatchObject({
      code: grpcCodes.unavailable,
      message: "the connection ended before the answer's status",
    });
  });

  test("a web server", async () => {
    const server = createHttp2Server((_request, response) => {
      response.statusCode = 404;
      response.end("not found");
    });
    await listen(server);
    await expect(call()).rejects.toMatchObject({
      code: grpcCodes.unavailable,
      message: "HTTP status 404",
    });
  });

  test.each([
    ["no message", Buffer.alloc(0)],
    ["a compressed message", Buffer.from([1, 0, 0, 0, 1, 65])],
    ["less than it announces", Buffer.from([0, 0, 0, 0, 9, 65])],
    ["two messages", Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0])],
  ])("one whose answer is %s", async (_, body) => {
    const server = createHttp2Server();
    server.on("stream", (stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.end(body);
    });
    await listen(server);
    await expect(call()).rejects.toMatchObject({
      code: grpcCodes.internal,
      message: "the answer is not one uncompressed message",
    });
  });
});
