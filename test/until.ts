import { setTimeout as delay } from "node:timers/promises";

/**
 * Resolves with what the probe says, as soon as that is neither `undefined` nor `false`. For conditions that can only be
 * polled; for those of Kubernetes objects there is `kubectl wait`. A probe that fails is asked again; the last error is the
 * cause when the time is over, which only ends what hangs: on a busy machine everything takes some minutes. What has taken
 * longer is asked for more seldom, because many probes are processes.
 */
export async function until<T>(
  what: string,
  probe: () => Promise<T | false | undefined>,
  timeoutMs = 180_000,
): Promise<T> {
  const begin = Date.now();
  for (let last: unknown; ; ) {
    try {
      const result = await probe();
      if (result !== undefined && result !== false) return result;
      last = undefined;
    } catch (error) {
      last = error;
    }
    const elapsed = Date.now() - begin;
    if (elapsed > timeoutMs) throw new Error(`not within ${timeoutMs / 1000} s: ${what}`, { cause: last });
    await delay(Math.min(Math.max(100, elapsed / 20), 500));
  }
}
