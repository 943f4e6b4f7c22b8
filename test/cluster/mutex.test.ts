import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { privateDirectory, withLock } from "../../tools/files/mutex.ts";

const stranger = 65534;
const user = 65533;
const locks = "/run/contrast-runtime/locks";

/** A directory that everybody may write to, as /tmp is. */
let shared: string;
beforeEach(() => {
  shared = mkdtempSync(join(tmpdir(), "mutex-"));
  chmodSync(shared, 0o1777);
});
afterEach(() => rmSync(shared, { recursive: true }));

const asStranger = (script: string) => spawnSync("sh", ["-c", script], { uid: stranger, gid: stranger });

/** A process of another user, whose cache is below `shared`, that takes the lock and says what became of that. */
function asUser(name = "test") {
  const program = `
    import { withLock } from ${JSON.stringify(join(import.meta.dirname, "../../tools/files/mutex.ts"))};
    await withLock(${JSON.stringify(name)}, "the user", (other) => console.log("waits for", other), async () => console.log("held")).catch((error) => console.log(error.code, error.message));`;
  return spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    uid: user,
    gid: user,
    env: { PATH: process.env.PATH, XDG_CACHE_HOME: shared },
    encoding: "utf8",
    timeout: 30_000,
  });
}

test("one holder at a time; who waits is told once whom for, in one short line without control characters", async () => {
  const order: string[] = [];
  const heard: string[] = [];
  let second: Promise<void> | undefined;
  await withLock(
    shared,
    `process 1 \u001b[2K\u001b]0;title\u0007of\nmine ${"x".repeat(1000)}`,
    () => {},
    async () => {
      await new Promise<void>((told) => {
        const listen = (other: string) => {
          heard.push(other);
          told();
        };
        second = withLock(shared, "second", listen, async () => void order.push("second"));
      });
      order.push("first");
    },
  );
  await second;
  expect(order).toEqual(["first", "second"]);
  expect(heard).toHaveLength(1);
  expect(heard[0]).toMatch(/^process 1 of mine x+…$/);
  expect(heard[0]?.length).toBeLessThanOrEqual(100);
});

test("many who wait for one lock, some of whom find its file removed, never hold it together", async () => {
  let inside = 0;
  let most = 0;
  const one = () =>
    withLock(
      `${shared} many`,
      "one",
      () => {},
      async () => {
        most = Math.max(most, ++inside);
        await new Promise((wake) => setImmediate(wake));
        inside--;
      },
    );
  await Promise.all(Array.from({ length: 12 }, one));
  expect(most).toBe(1);
});

test("a holder that is killed frees the lock, and its text is not mistaken for the next one's", async () => {
  const module = JSON.stringify(join(import.meta.dirname, "../../tools/files/mutex.ts"));
  const program = `import { withLock } from ${module};
    await withLock(${JSON.stringify(shared)}, "a long text of the first one", () => {}, () => new Promise((resolve) => { console.log("held"); setTimeout(resolve, 600_000); }));`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program]);
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  const heard: string[] = [];
  await withLock(
    shared,
    "next",
    () => {},
    async () => {
      let free = () => {};
      const waits = withLock(
        shared,
        "third",
        (other) => {
          heard.push(other);
          free();
        },
        async () => {},
      );
      await new Promise<void>((resolve) => (free = resolve));
      void waits.then(() => heard.push("third held"));
    },
  );
  expect(heard[0]).toBe("next");
});

describe("another user of the machine", () => {
  test("neither sees root's locks nor can make one of their names", async () => {
    await withLock(
      shared,
      "root's business",
      () => {},
      async () => {
        const { uid, mode } = lstatSync(locks);
        expect([uid, mode & 0o777]).toEqual([0, 0o700]);
        const [file] = readdirSync(locks);
        for (const script of [`ls ${locks}`, `cat ${locks}/${file}`, `flock -n ${locks}/${file} true`])
          expect(asStranger(script).status, script).not.toBe(0);
        expect(asStranger(`ln -s /etc/target ${locks}/name`).status).not.toBe(0);
        expect(asStranger(`mv /run/contrast-runtime /run/other`).status).not.toBe(0);
      },
    );
  });

  test("cannot make a lock's directory in another's place: he is told whose it is", () => {
    asStranger(`mkdir -p ${shared}/contrast-runtime/locks && chmod 777 ${shared}/contrast-runtime/locks`);
    expect(asUser().stdout).toMatch(/^not-ours .*\/locks belongs to user 65534, not to this one \(65533\)/);
  });

  test("cannot lead anybody elsewhere by links, of the directory or of a lock", () => {
    mkdirSync(join(shared, "contrast-runtime"), { mode: 0o777 });
    mkdirSync(join(shared, "elsewhere"));
    chownSync(join(shared, "contrast-runtime"), user, user);
    symlinkSync(join(shared, "elsewhere"), join(shared, "contrast-runtime", "locks"));
    expect(asUser().stdout).toMatch(/^not-ours .*it is a link/);
    expect(readdirSync(join(shared, "elsewhere"))).toEqual([]);
    rmSync(join(shared, "contrast-runtime", "locks"));
    mkdirSync(join(shared, "contrast-runtime", "locks"));
    chownSync(join(shared, "contrast-runtime", "locks"), user, user);
    const name = lockName();
    symlinkSync(join(shared, "elsewhere", "target"), join(shared, "contrast-runtime", "locks", name));
    expect(asUser().stdout).toMatch(/^lock-failed .*it is a link/);
    expect(existsSync(join(shared, "elsewhere", "target"))).toBe(false);
  });

  test("cannot make anybody wait by a file of his own, nor have it printed", () => {
    mkdirSync(join(shared, "contrast-runtime", "locks"), { recursive: true });
    for (const directory of ["contrast-runtime", "contrast-runtime/locks"])
      chownSync(join(shared, directory), user, user);
    const file = join(shared, "contrast-runtime", "locks", lockName());
    writeFileSync(file, "\u001b[2J your machine is broken, call …", { mode: 0o666 });
    chmodSync(file, 0o666);
    chownSync(file, stranger, stranger);
    const { stdout } = asUser();
    expect(stdout).toMatch(/^lock-failed .* is no file of this user \(65533\) but one of user 65534/);
    expect(stdout).not.toMatch(/broken/);
  });

  test("does not see a user's locks either, though their directory was open to all before", () => {
    mkdirSync(join(shared, "contrast-runtime", "locks"), { recursive: true });
    for (const directory of ["contrast-runtime", "contrast-runtime/locks"])
      chownSync(join(shared, directory), user, user);
    expect(asUser().stdout).toBe("held\n");
    expect(statSync(join(shared, "contrast-runtime", "locks")).mode & 0o777).toBe(0o700);
  });
});

test("a directory of one's own is made, or closed to others", async () => {
  const directory = join(shared, "a", "b");
  await privateDirectory(directory);
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  chmodSync(directory, 0o755);
  await privateDirectory(directory);
  expect(statSync(directory).mode & 0o777).toBe(0o700);
});

/** The name of the file for the lock "test", as the program itself makes it. */
function lockName(): string {
  const own = mkdtempSync(join(shared, "own-"));
  chownSync(own, user, user);
  const program = `
    import { readdirSync } from "node:fs";
    import { withLock } from ${JSON.stringify(join(import.meta.dirname, "../../tools/files/mutex.ts"))};
    await withLock("test", "x", () => {}, async () => console.log(readdirSync(${JSON.stringify(join(own, "contrast-runtime", "locks"))})[0]));`;
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    uid: user,
    gid: user,
    env: { PATH: process.env.PATH, XDG_CACHE_HOME: own },
    encoding: "utf8",
  });
  if (!stdout) throw new Error(stderr);
  return stdout.trim();
}
