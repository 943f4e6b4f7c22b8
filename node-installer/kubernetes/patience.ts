import { type Api, ApiError } from "./api.ts";

/** How long a call goes on when the API server says "too many requests": that is its word for "later", not for "no". */
const patienceMs = 15_000;
const firstPauseMs = 500;

/** What the API server asked for with its answer, in milliseconds; 0 if nothing. */
export const retryAfterOf = (error: unknown): number => (error instanceof ApiError ? error.retryAfterMs : 0);

/** The pause after so many failures in a row: twice as long each time. */
export const grown = (failures: number, firstMs: number, longestMs: number): number =>
  Math.min(firstMs * 2 ** Math.max(0, failures - 1), longestMs);

/** From half to one and a half times as long: what happened to all nodes at once must not bring them all back at once. */
export const jittered = (ms: number, random: () => number): number => ms * (0.5 + random());

export interface PatienceOptions {
  delay: (ms: number) => Promise<void>;
  /** From 0 to below 1. Default: `Math.random`. */
  random?: (() => number) | undefined;
}

/**
 * The same API, whose calls wait and try again when they are refused for their number (429), as long as the API server
 * says with `Retry-After` and at growing, uneven intervals; after some 15 s they fail as they did. Such a request was not
 * looked at, so that each may be repeated.
 */
export function patientApi(api: Api, { delay, random = Math.random }: PatienceOptions): Api {
  const patiently = async <T>(call: () => Promise<T>): Promise<T> => {
    let waitedMs = 0;
    for (let failures = 1; ; failures += 1) {
      try {
        return await call();
      } catch (error) {
        const isThrottled = error instanceof ApiError && error.status === 429;
        const pauseMs = retryAfterOf(error) + jittered(grown(failures, firstPauseMs, patienceMs), random);
        if (!isThrottled || waitedMs + pauseMs > patienceMs) throw error;
        waitedMs += pauseMs;
        await delay(pauseMs);
      }
    }
  };
  return {
    get: (path) => patiently(() => api.get(path)),
    create: (path, object) => patiently(() => api.create(path, object)),
    mergePatch: (path, patch) => patiently(() => api.mergePatch(path, patch)),
    delete: (path, preconditions) => patiently(() => api.delete(path, preconditions)),
  };
}
