/** Receives lines for the waiting user: what is being done, and how far it is. */
export type Progress = (line: string) => void;

export const toStderr: Progress = (line) => void process.stderr.write(`${line}\n`);

export const seconds = (since: number) => `${((Date.now() - since) / 1000).toFixed(1)} s`;

/** Calls `line` every `everySeconds` while the action runs, so that nobody wonders whether it is stuck. */
export async function whileWaiting<T>(everySeconds: number, line: () => void, action: () => Promise<T>): Promise<T> {
  const timer = setInterval(line, everySeconds * 1000);
  timer.unref();
  try {
    return await action();
  } finally {
    clearInterval(timer);
  }
}
