import { expect, test } from "vitest";
import { Backoff, RepairPace } from "../../../../node-installer/install/backoff.ts";

const minutes = (count: number) => count * 60_000;

test("a delay doubles up to the longest, and begins anew when it is reset", () => {
  const backoff = new Backoff(1_000, 5_000);
  expect([1, 2, 3, 4, 5].map(() => backoff.next())).toEqual([1_000, 2_000, 4_000, 5_000, 5_000]);
  backoff.reset();
  expect(backoff.next()).toBe(1_000);
});

test("drift is repaired at once, then at growing intervals as long as it continues", () => {
  const pace = new RepairPace();
  expect(pace.allows(0)).toBe(true);
  let now = 0;
  const waits = [1, 2, 3, 4, 5, 6, 7].map(() => {
    const wait = pace.repaired(now);
    expect([pace.allows(now + wait - 1), pace.allows(now + wait)]).toEqual([false, true]);
    now += wait;
    return wait;
  });
  expect(waits).toEqual([1, 2, 4, 8, 16, 30, 30].map(minutes));
});

test("after half an hour without drift the intervals begin anew, not before", () => {
  const pace = new RepairPace();
  expect(pace.repaired(0)).toBe(minutes(1));
  pace.quiet(minutes(31));
  expect(pace.repaired(minutes(31))).toBe(minutes(2));
  pace.quiet(minutes(33 + 31));
  expect(pace.repaired(minutes(64))).toBe(minutes(1));
});
