import { expect, test } from "vitest";
import { nodeShapes } from "../../../fakes/node-shapes.ts";
import { changes } from "../../../fault-trials/changes.ts";
import { type Share, tryOut } from "../../../fault-trials/selection.ts";

/**
 * Fault injection, by selection; test/campaigns/faults.ts makes every trial. Calls fail, once or for good, processes are
 * killed, the power fails with the loss of what was not synced, other programs write the file, reads and requests fail: once
 * each, and in pairs. Then the host is left alone (the guard's script runs, no installer), and finally the installer is
 * started again. Whenever things have settled, the node must serve the old or the new; at last, it must be as it would be
 * without a fault: files, labels, tickets, leftovers, and few restarts.
 */
const [plain, ...others] = nodeShapes;
const timeout = 3_600_000;
const much: Share = { basic: 6, other: 25, twice: 1_000 };
const little: Share = { basic: 120, other: 240, twice: 8_000 };

test.each(changes)("faults during: $name", { timeout }, async (change) => {
  if (plain === undefined) throw new Error("there is no plain node");
  const { trials, failures } = await tryOut(plain, change, much);
  expect(failures).toEqual([]);
  expect(trials).toBeGreaterThan(60);
});

test.each(others.map((shape, index) => ({ shape, change: changes[index % changes.length] ?? changes[0] })))(
  "faults on $shape.name, during: $change.name",
  { timeout },
  async ({ shape, change }) => {
    const { trials, failures } = await tryOut(shape, change, little);
    expect(failures).toEqual([]);
    expect(trials).toBeGreaterThan(3);
  },
);
