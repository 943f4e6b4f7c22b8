/** What a node sees of the queue that it waits in. */
interface QueueView {
  /** How long each ticket has been held, in milliseconds, without those that failed nodes keep. */
  heldMs: readonly number[];
  atOnce: number;
}

/** Part of the tickets that may lie unused because nobody looked yet. */
const unused = 0.05;
const firstMs = 1_000;
/** Of a thousand nodes that wait for days behind one that failed, each asks this often. */
const longestMs = 120_000;
/** Others' clocks may be wrong, and the queue may become faster: the longest pause, of the time waited so far. */
const boldness = 0.3;
/** For so long the number of those that wait is reckoned, and not asked for. */
const reckonedMs = 10_000;

/**
 * When a waiting node asks again. All that wait ask together a little more often than tickets become free: so each asks a few
 * times until it has one, however many they are, and hardly any ticket lies unused. How many wait, the DaemonSet says;
 * how fast tickets become free, those that are held. Both decide about pauses and nothing else.
 */
export class QueuePace {
  private came: number | undefined;
  private pauseMs = 0;
  private counted: { waiting: number; at: number } | undefined;

  /**
   * The mean pause in milliseconds: callers spread them.
   *
   * @param count how many nodes of the group are not done, this one included; undefined if it cannot be told
   */
  async next(now: number, { heldMs, atOnce }: QueueView, count: () => Promise<number | undefined>): Promise<number> {
    this.came ??= now;
    let wanted = Number.POSITIVE_INFINITY;
    if (heldMs.length > 0) {
      // Of those that are held at a time, some have just begun and some are about to end.
      const holdMs = (2 * heldMs.reduce((sum, ms) => sum + Math.max(0, ms), 0)) / heldMs.length;
      const everyMs = Math.max(1, holdMs / heldMs.length);
      // The fewer tickets there are, the more it matters that one is seen at once.
      const looksPerTicket = 3 + 1 / (1.4 * unused * atOnce);
      wanted = ((await this.waiting(now, everyMs, count)) * everyMs) / looksPerTicket;
    }
    const growing = Math.max(firstMs, 1.5 * this.pauseMs);
    const boldest = Math.max(firstMs, boldness * (now - this.came));
    // One short hold is no reason to hurry.
    this.pauseMs = Math.min(Math.max(wanted, this.pauseMs / 2, firstMs / 4), growing, boldest, longestMs);
    return this.pauseMs;
  }

  /** Infinite if it is not known. */
  private async waiting(now: number, everyMs: number, count: () => Promise<number | undefined>): Promise<number> {
    if (this.counted === undefined || now - this.counted.at > reckonedMs) {
      const waiting = await count();
      if (waiting === undefined) return Number.POSITIVE_INFINITY;
      this.counted = { waiting, at: now };
    }
    return Math.max(1, this.counted.waiting - (now - this.counted.at) / everyMs);
  }
}
