// How long the CRI was unreachable, as kubelet would have noticed.
import { connect } from "node:http2";
import { createConnection } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

const intervalMs = 10;

/** One `Version` call on a new connection: a client that keeps its connection waits longer and longer between retries. */
function answers(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const session = connect("http://localhost", { createConnection: () => createConnection(socket) });
    const end = (result: boolean) => {
      session.destroy();
      resolve(result);
    };
    session.on("error", () => end(false));
    session.setTimeout(2_000, () => end(false));
    const call = session.request({
      ":method": "POST",
      ":path": "/runtime.v1.RuntimeService/Version",
      "content-type": "application/grpc",
      te: "trailers",
    });
    let status: unknown;
    const note = (headers: Record<string, unknown>) => {
      status = headers["grpc-status"] ?? status;
    };
    call.on("response", note);
    call.on("trailers", note);
    call.on("error", () => end(false));
    call.on("close", () => end(status === "0"));
    call.resume();
    // A message without fields: uncompressed, zero bytes.
    call.end(Buffer.alloc(5));
  });
}

/** The longest time between two answers while the action was running, in milliseconds. */
export async function longestSilence(socket: string, action: () => Promise<unknown>): Promise<number> {
  let done = false;
  let longest = 0;
  const probing = (async () => {
    if (!(await answers(socket))) throw new Error(`the CRI at ${socket} does not even answer before the action`);
    for (let last = performance.now(); ; ) {
      const ended = done;
      if (await answers(socket)) {
        const now = performance.now();
        longest = Math.max(longest, now - last);
        last = now;
        if (ended) return;
      }
      await delay(intervalMs);
    }
  })();
  try {
    await action();
  } finally {
    done = true;
  }
  await probing;
  return longest;
}
