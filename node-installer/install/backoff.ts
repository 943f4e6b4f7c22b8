/** A delay that doubles each time it is asked for. */
export class Backoff {
  private readonly firstMs: number;
  private readonly longestMs: number;
  private nextMs: number;

  constructor(firstMs: number, longestMs: number) {
    this.firstMs = firstMs;
    this.longestMs = longestMs;
    this.nextMs = firstMs;
  }

  next(): number {
    const now = this.nextMs;
    this.nextMs = Math.min(now * 2, this.longestMs);
    return now;
  }

  reset(): void {
    this.nextMs = this.firstMs;
  }
}

/** Between attempts at a rollback that failed, each of which restarts containerd. */
export const rollbackBackoff = () => new Backoff(60_000, 600_000);

const longestRepairMs = 1_800_000;

/**
 * When containerd may be restarted to repair drift: at growing intervals as long as the drift continues, so that a program
 * that keeps changing the file is not fought. Times are those of one monotonic clock, in milliseconds.
 */
export class RepairPace {
  private readonly backoff = new Backoff(60_000, longestRepairMs);
  private notBefore = 0;

  allows(now: number): boolean {
    return now >= this.notBefore;
  }

  /** Returns how long the next repair has to wait. */
  repaired(now: number): number {
    const waitMs = this.backoff.next();
    this.notBefore = now + waitMs;
    return waitMs;
  }

  /** Nothing had drifted: after a long time without drift, the intervals begin anew. */
  quiet(now: number): void {
    if (now > this.notBefore + longestRepairMs) this.backoff.reset();
  }
}
