import { createHash } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

/**
 * Runs the action while holding the lock of this name, one holder per machine. The lock is a listening socket in Linux's
 * abstract namespace: the kernel frees it when its holder ends in whatever way, so it is never stale, and whoever waits
 * is woken by the connection's end instead of asking again and again.
 *
 * @param holder what the others are told that they wait for
 * @param onWait called once with the other holder's words, before waiting
 */
export async function withLock<T>(
  name: string,
  holder: string,
  onWait: (holder: string) => void,
  action: () => Promise<T>,
): Promise<T> {
  // The kernel allows 107 bytes.
  const address = `\0contrast-runtime-${createHash("sha256").update(name).digest("hex").slice(0, 32)}`;
  let announced = false;
  let lock = await listen(address, holder);
  while (!lock) {
    await untilReleased(address, (other) => {
      if (!announced) onWait(other);
      announced = true;
    });
    lock = await listen(address, holder);
  }
  try {
    return await action();
  } finally {
    await lock.release();
  }
}

async function listen(address: string, holder: string): Promise<{ release(): Promise<void> } | undefined> {
  const waiting = new Set<Socket>();
  const server: Server = createServer((socket) => {
    waiting.add(socket);
    socket.on("error", () => {}).on("close", () => waiting.delete(socket));
    socket.write(`${holder}\n`);
  });
  try {
    server.listen(address);
    await once(server, "listening");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EADDRINUSE") return undefined;
    throw error;
  }
  return {
    async release() {
      const closed = once(server, "close");
      server.close();
      for (const socket of waiting) socket.destroy();
      await closed;
    },
  };
}

/** Resolves when the present holder is gone; at once when there is none. */
async function untilReleased(address: string, onHolder: (holder: string) => void): Promise<void> {
  await new Promise<void>((resolve) => {
    const socket = connect(address);
    socket.on("data", (words) => onHolder(words.toString().trim()));
    socket.on("error", () => {});
    socket.on("close", () => resolve());
  });
}
