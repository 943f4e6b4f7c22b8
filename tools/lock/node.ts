import { spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { Refusal } from "../../runtime/refusal.ts";
import { type Progress, whileWaiting } from "../process/progress.ts";
import { type FileTree, openArchives } from "./archives.ts";

/**
 * Reads files of a node through a command that runs another one there: `ssh root@node-1`, or
 * `kubectl exec -n kube-system node-shell -- chroot /host`. The node needs nothing but tar; ssh checks the host's key and
 * kubectl the user's rights, as always.
 *
 * @param via the words before the command; split at spaces
 * @param paths absolute; files, or directories with everything below
 * @param use the files; gone afterwards
 */
export async function withNodeFiles<T>(
  via: string,
  paths: string[],
  use: (tree: FileTree) => Promise<T>,
  progress: Progress,
): Promise<T> {
  const relative = paths.find((path) => !path.startsWith("/") || path.includes("/../"));
  if (relative !== undefined) throw new Refusal("node-path", `"${relative}" must be an absolute path of the node.`);
  const directory = await mkdtemp(join(tmpdir(), "node-files-"));
  try {
    const archive = join(directory, "files.tar");
    await fetchArchive(via, paths, archive, progress);
    return await use({ ...(await openArchives([archive], `the node (${via})`, progress)), top: "/" });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function fetchArchive(via: string, paths: string[], target: string, progress: Progress): Promise<void> {
  // Links are followed on the node: the files behind them may lie outside the paths.
  const remote = ["tar", "-C", "/", "-chf", "-", "--", ...paths.map((path) => quoted(path.slice(1)))];
  const [command = "", ...words] = [...via.trim().split(/\s+/), ...remote];
  progress(`Reading ${paths.join(", ")} of the node: ${via} …`);
  const child = spawn(command, words, { stdio: ["inherit", "pipe", "pipe"] });
  let said = "";
  child.stderr.on("data", (chunk) => {
    said += chunk;
  });
  const started = once(child, "spawn").catch((error: Error) => {
    throw new Refusal("node-unreachable", `${command} cannot be started: ${error.message}.`);
  });
  const ended = once(child, "close") as Promise<[number | null]>;
  ended.catch(() => {}); // reported by `started`
  const file = createWriteStream(target);
  await started;
  const line = () => progress(`  ${(file.bytesWritten / 1e6).toFixed(0)} MB read`);
  await whileWaiting(5, line, () => pipeline(child.stdout, file));
  const [code] = await ended;
  if (code !== 0)
    throw new Refusal(
      "node-unreachable",
      `The files of the node could not be read: ${via} … tar ended with ${code}. ${said.trim().split("\n").slice(-5).join(" ")}`,
    );
}

/** ssh hands its words to the node's shell; the others pass them as they are. A path that no shell changes suits both. */
function quoted(path: string): string {
  if (/^[A-Za-z0-9._+@/,:=-]+$/.test(path)) return path;
  throw new Refusal(
    "node-path",
    `"/${path}" has characters that a shell would change: letters, digits and ._+@/,:=- are possible.`,
  );
}
