import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { openCri } from "../../../../node-installer/containerd/cri.ts";

test("the connection: what exactly is wrong", async () => {
  const directory = mkdtempSync(join(tmpdir(), "cri-"));
  const socket = join(directory, "s.sock");
  const cri = openCri(socket);
  await expect(cri.version(1000)).rejects.toThrow(`no containerd answers at ${socket} (there is no such socket)`);

  const server = new Server();
  await new Promise<void>((resolve, reject) =>
    server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) =>
      error ? reject(error) : resolve(),
    ),
  );
  // The daemon that has started meanwhile is found.
  await expect(cri.version(60_000)).rejects.toMatchObject({ name: "CriError", withoutPlugin: true });
  server.forceShutdown();
  rmSync(directory, { recursive: true });
});
