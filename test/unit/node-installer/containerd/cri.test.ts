import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { describe, expect, test } from "vitest";
import { openCri } from "../../../../node-installer/containerd/cri.ts";
import { CriError } from "../../../../node-installer/containerd/cri-error.ts";

describe("the connection", () => {
  test("reports what exactly is wrong", async () => {
    const directory = mkdtempSync(join(tmpdir(), "cri-"));
    const socket = join(directory, "s.sock");
    const cri = openCri(socket);
    await expect(cri.version(1000)).rejects.toThrow(/no containerd answers at/);

    const server = new Server();
    await new Promise<void>((resolve, reject) =>
      server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) =>
        error ? reject(error) : resolve(),
      ),
    );
    // The same connection finds the daemon that has started meanwhile.
    const missing: unknown = await retried(() => cri.version(1000));
    expect(missing).toMatchObject({ name: "CriError", withoutPlugin: true });
    cri.close();
    server.forceShutdown();
    rmSync(directory, { recursive: true, force: true });
  });

  /** The error of a call, once it is no longer that nobody answers. */
  async function retried(call: () => Promise<unknown>): Promise<unknown> {
    for (;;) {
      const error = await call().catch((reason: unknown) => reason);
      if (!(error instanceof CriError) || !error.message.startsWith("no containerd")) return error;
    }
  }
});
