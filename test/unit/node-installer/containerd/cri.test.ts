import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Cri, openCri } from "../../../../node-installer/containerd/cri.ts";

let directory: string;
let socket: string;
let cri: Cri;
let server: Server | undefined;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "cri-"));
  socket = join(directory, "s.sock");
  cri = openCri(socket);
});
afterEach(() => {
  server?.forceShutdown();
  server = undefined;
  rmSync(directory, { recursive: true });
});

/** A server that answers a method of the CRI with these bytes. */
async function serve(method?: string, answer: number[] = []): Promise<void> {
  server = new Server();
  const bytes = (value: Buffer): Buffer => value;
  const codec = {
    requestSerialize: bytes,
    requestDeserialize: bytes,
    responseSerialize: bytes,
    responseDeserialize: bytes,
  };
  const streams = { requestStream: false, responseStream: false } as const;
  const path = `/runtime.v1.RuntimeService/${method}`;
  if (method !== undefined)
    server.addService(
      { call: { path, ...streams, ...codec } },
      {
        call: (_: unknown, reply: (error: null, value: Buffer) => void) => reply(null, Buffer.from(answer)),
      },
    );
  const started = server;
  await new Promise<void>((resolve, reject) =>
    started.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) =>
      error === null ? resolve() : reject(error),
    ),
  );
}

test("the connection: what exactly is wrong", async () => {
  await expect(cri.version(60_000)).rejects.toThrow(`no containerd answers at ${socket} (there is no such socket)`);
  await serve();
  // The daemon that has started meanwhile is found.
  await expect(cri.version(60_000)).rejects.toMatchObject({ name: "CriError", withoutPlugin: true });
});

describe("an answer", () => {
  /** A field of bytes: its number, its length, the text. */
  const field = (number: number, text: string): number[] => [(number << 3) | 2, text.length, ...Buffer.from(text)];

  test("with fields that we do not read, of every kind", async () => {
    const others = [...field(1, "0.1.0"), 0x48, 0x96, 0x01, 0x51, 1, 2, 3, 4, 5, 6, 7, 8, 0x5d, 1, 2, 3, 4];
    await serve("Version", [...others, ...field(2, "containerd"), ...field(3, "v2.3.3"), ...field(4, "v1")]);
    expect(await cri.version(60_000)).toEqual({ runtimeName: "containerd", runtimeVersion: "v2.3.3" });
  });

  test("without a single field", async () => {
    await serve("Status");
    expect(await cri.status(60_000)).toEqual({ conditions: [], info: {} });
  });

  test.each([
    ["ends within a field", [0x1a, 20, 0x76], "its last field is longer than it"],
    ["is of another protocol", [0x0f, 0xff], "Unimplemented type: 7"],
  ])("that %s", async (_, bytes, reason) => {
    await serve("Version", bytes);
    await expect(cri.version(60_000)).rejects.toMatchObject({
      name: "CriError",
      message: `containerd's answer to Version at ${socket} cannot be read (${reason})`,
    });
  });

  test("a sandbox that is not ready", async () => {
    const metadata = [0x12, 8, ...field(1, "a"), ...field(3, "b"), 0x20, 3];
    const sandbox = [...field(1, "id"), ...metadata, 0x18, 1, ...field(7, "kata")];
    await serve("ListPodSandbox", [0x0a, sandbox.length, ...sandbox]);
    const expected = { id: "id", ready: false, runtimeHandler: "kata" };
    expect(await cri.listSandboxes(60_000)).toEqual([
      { ...expected, metadata: { name: "a", uid: "", namespace: "b", attempt: 3 } },
    ]);
  });
});
