/** Time that passes only when everybody waits for it: days of a fleet in a second, and the same every time. */
export class VirtualClock {
  /** Milliseconds since the start. */
  time = 0;
  private readonly timers: { at: number; order: number; wake: () => void }[] = [];
  private order = 0;

  delay(ms: number): Promise<void> {
    return new Promise((wake) => {
      this.order += 1;
      this.push({ at: this.time + Math.max(0, ms), order: this.order, wake });
    });
  }

  /** Lets time pass until this has ended. Throws if nobody waits for anything any more. */
  async until<T>(work: Promise<T>): Promise<T> {
    let over = false;
    const end = () => {
      over = true;
    };
    work.then(end, end);
    for (;;) {
      // Everything that can go on at this time does.
      await new Promise(setImmediate);
      if (over) return work;
      const next = this.pop();
      if (next === undefined) throw new Error(`nothing can go on at ${this.time} ms`);
      this.time = next.at;
      next.wake();
    }
  }

  /* A binary heap: the earliest first, and of those at one time the one that was there first. */

  private isBefore(one: number, other: number): boolean {
    const [a, b] = [this.timers[one], this.timers[other]];
    if (a === undefined || b === undefined) return a !== undefined;
    return a.at < b.at || (a.at === b.at && a.order < b.order);
  }

  private swap(one: number, other: number): void {
    const [a, b] = [this.timers[one], this.timers[other]];
    if (a === undefined || b === undefined) return;
    [this.timers[one], this.timers[other]] = [b, a];
  }

  private push(timer: { at: number; order: number; wake: () => void }): void {
    this.timers.push(timer);
    for (let at = this.timers.length - 1; at > 0; ) {
      const parent = (at - 1) >> 1;
      if (!this.isBefore(at, parent)) break;
      this.swap(at, parent);
      at = parent;
    }
  }

  private pop() {
    this.swap(0, this.timers.length - 1);
    const first = this.timers.pop();
    for (let at = 0; ; ) {
      const child = this.isBefore(2 * at + 2, 2 * at + 1) ? 2 * at + 2 : 2 * at + 1;
      if (child >= this.timers.length || !this.isBefore(child, at)) return first;
      this.swap(child, at);
      at = child;
    }
  }
}

/** Numbers from 0 to below 1 that are the same in each run (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
