import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";

export interface AwaitHostOptions {
  address: string;
  port: number;
  /** Of the host key that is expected. */
  fingerprint?: string | undefined;
  /** How long a host that starts is waited for. */
  seconds: number;
}

/** How long a server may take for its first line: one that is overloaded takes seconds. */
const answerMs = 15_000;
const pauseMs = 2_000;

/**
 * The command before all others on a host. The command provider waits without a limit for a server that accepts a
 * connection and says nothing, as one of a machine that hangs does; and gives one that starts a second.
 *
 * @throws Refusal `host-silent`, `no-ssh-agent`
 */
export async function awaitHost({ address, port, fingerprint, seconds }: AwaitHostOptions): Promise<number> {
  await requireAgent(process.env.SSH_AUTH_SOCK);
  const until = performance.now() + 1000 * seconds;
  for (let said: string | undefined; ; ) {
    const left = until - performance.now();
    const { banner, problem } = await firstLine(address, port, Math.max(1_000, Math.min(answerMs, left)));
    if (banner !== undefined) {
      const key =
        fingerprint === undefined
          ? ""
          : ` Its host key must be ${fingerprint}: where it says "host key mismatch" next, somebody else answers.`;
      console.log(`${address}:${port} answers as ${printable(banner, 100)}.${key}`);
      return 0;
    }
    if (until - performance.now() < pauseMs)
      throw new Refusal(
        "host-silent",
        `The SSH server of ${address}:${port} has not answered for ${seconds} s: ${problem}. Start the host, or its sshd. A host ` +
          "that shall not be waited for is named under the group's ignoreNodes.",
      );
    if (problem !== said) console.log(`${address}:${port} does not answer yet: ${problem}`);
    said = problem;
    await delay(pauseMs);
  }
}

/** Up to the line with which an SSH server begins (RFC 4253, 4.2), which others may precede. */
function firstLine(host: string, port: number, timeoutMs: number): Promise<{ banner?: string; problem: string }> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connect({ host, port });
    const end = (problem: string, banner?: string) => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ problem, ...(banner !== undefined && { banner }) });
    };
    const timer = setTimeout(() => {
      end(socket.connecting ? "nothing answers" : "it accepts the connection and says nothing");
    }, timeoutMs);
    socket.setEncoding("latin1");
    socket.on("data", (chunk: string) => {
      text += chunk;
      const [banner] = /^SSH-[^\r\n]*(?=\r?\n)/m.exec(text) ?? [];
      if (banner !== undefined) end("", banner);
      else if (text.length > 8_192) end("what answers there is no SSH server");
    });
    socket.on("end", () => end("it ends the connection without an answer"));
    socket.on("error", ({ message }) => end(message));
  });
}

/** Of an agent's socket that is gone the provider makes an error of every command, although a key is given. */
async function requireAgent(path: string | undefined): Promise<void> {
  if (path === undefined || path === "") return;
  const problem = await new Promise<string | undefined>((resolve) => {
    const socket = connect({ path });
    socket.on("connect", () => resolve(undefined)).on("error", ({ message }) => resolve(message));
    socket.on("connect", () => socket.destroy());
  });
  if (problem === undefined) return;
  throw new Refusal(
    "no-ssh-agent",
    `SSH_AUTH_SOCK is ${path}, where no SSH agent answers (${problem}), so that no command by SSH would run. The stack's key is ` +
      "enough: unset SSH_AUTH_SOCK, or start the agent.",
  );
}
