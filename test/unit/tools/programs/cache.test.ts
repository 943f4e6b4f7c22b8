import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { cached, requireSpace } from "../../../../tools/programs/cache.ts";

let home: string;
const silent = () => {};
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "cache-"));
  vi.stubEnv("XDG_CACHE_HOME", home);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(home, { recursive: true });
});

describe("an entry", () => {
  test("is made once for simultaneous requests, and again for other inputs", async () => {
    const make = vi.fn(async (directory: string) => writeFile(join(directory, "file"), ""));
    const ask = (inputs: number) => cached({ name: "entry", inputs, make }, silent);
    const [one, other] = await Promise.all([ask(1), ask(1)]);
    expect(other).toBe(one);
    expect(make).toHaveBeenCalledTimes(1);
    expect(await ask(2)).not.toBe(one);
    expect(await readdir(one)).toEqual(["file"]);
  });

  test("is accessible to users other than root, however strict this process's umask is", async () => {
    const before = process.umask(0o077);
    try {
      const make = (directory: string) => mkdir(join(directory, "usr"));
      const entry = await cached(
        { name: "tree", inputs: 1, make: async (directory) => void (await make(directory)) },
        silent,
      );
      for (const directory of [entry, join(entry, "usr")]) expect((await stat(directory)).mode & 0o777).toBe(0o755);
    } finally {
      process.umask(before);
    }
  });

  test("that fails to be made leaves nothing", async () => {
    const make = async (directory: string) => {
      await writeFile(join(directory, "half"), "");
      throw new Error("interrupted");
    };
    await expect(cached({ name: "entry", inputs: 1, make }, silent)).rejects.toThrow("interrupted");
    expect(await readdir(join(home, "contrast-runtime", "programs"))).toEqual([]);
  });
});

test("a disk that is too small is refused with advice: to move the cache only if it is the cache's disk", async () => {
  const entry = { name: "entry", inputs: 1, space: 1e18, make: async () => {} };
  await expect(cached(entry, silent)).rejects.toThrow(
    /^entry needs 1000000000\.0 GB .* Make room there, or set XDG_CACHE_HOME to a directory on a larger disk\.$/,
  );
  await expect(requireSpace("/var", 1e18, "A local cluster")).rejects.toThrow(/ are free\. Make room there\.$/);
});

test("space is looked for where a directory will be, whether or not somebody has removed it", async () => {
  const gone = join(home, "removed", "by others");
  await expect(requireSpace(gone, 1, "A local cluster")).resolves.toBeUndefined();
  await expect(requireSpace(gone, 1e18, "A local cluster")).rejects.toThrow(/ GB of free disk space at .*by others, /);
});
