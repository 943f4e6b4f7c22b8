import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { withLock, withOpenLock } from "../../../../tools/files/mutex.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "mutex-"));
});
afterEach(async () => {
  vi.unstubAllGlobals();
  vi.unstubAllEnvs();
  await rm(directory, { recursive: true });
});

/** An open as that of macOS or Windows: while the file is open, nobody else opens it. */
function exclusiveOpen(code: string, flag: number): { opens: typeof open; flags: number[] } {
  const flags: number[] = [];
  let isOpen = false;
  const opens = (async (file: string, wanted: number, mode: number) => {
    flags.push(wanted);
    if ((wanted & flag) === 0) throw new Error("opened without the exclusive flag");
    if (isOpen) throw Object.assign(new Error(code), { code });
    isOpen = true;
    const handle = await open(file, wanted & ~flag, mode);
    const close = handle.close.bind(handle);
    handle.close = () => {
      isOpen = false;
      return close();
    };
    return handle;
  }) as typeof open;
  return { opens, flags };
}

describe.each([
  ["darwin", "EAGAIN", 0x20],
  ["win32", "EBUSY", 0x1000_0000],
] as const)("where flock is missing (%s)", (platform, code, flag) => {
  test("one after the other acts, who waits is told once, and a failed action frees the lock", async () => {
    const { opens } = exclusiveOpen(code, flag);
    vi.stubGlobal("process", Object.create(process, { platform: { value: platform } }));
    const done: string[] = [];
    const act = (name: string) => async () => {
      done.push(`${name} begins`);
      await new Promise((wake) => setImmediate(wake));
      done.push(`${name} ends`);
      // The same code as of a lock that is taken: the action must not run again.
      if (name === "a") throw Object.assign(new Error("of the action"), { code });
    };
    const told: string[] = [];
    const waits = (holder: string) => told.push(holder);
    const file = join(directory, "lock");
    const both = await Promise.allSettled(["a", "b"].map((name) => withOpenLock(file, waits, act(name), opens)));
    expect(both.map(({ status }) => status)).toEqual(["rejected", "fulfilled"]);
    expect(done).toEqual(["a begins", "a ends", "b begins", "b ends"]);
    expect(told).toEqual(["another command"]);
  });

  test("a file that cannot be opened is no lock that is taken", async () => {
    vi.stubGlobal("process", Object.create(process, { platform: { value: platform } }));
    const action = vi.fn(async () => {});
    await expect(withOpenLock(join(directory, "none", "lock"), () => {}, action)).rejects.toThrow(/^ENOENT/);
    expect(action).not.toHaveBeenCalled();
  });
});

test("on Linux, one after the other acts, whatever the platform's fallback is", async () => {
  vi.stubEnv("XDG_CACHE_HOME", directory);
  const done: string[] = [];
  const act = (name: string) => async () => {
    done.push(`${name} begins`);
    await new Promise((wake) => setImmediate(wake));
    done.push(`${name} ends`);
  };
  await Promise.all(["a", "b"].map((name) => withLock(`mutex test ${directory}`, name, () => {}, act(name))));
  expect(done.map((line) => line.slice(2))).toEqual(["begins", "ends", "begins", "ends"]);
});
