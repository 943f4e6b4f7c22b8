import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir, uptime } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { joinFence } from "../../../../node-installer/containerd/fence.ts";
import { formatOrder, guardScript } from "../../../../node-installer/host/guard.ts";
import { fakeSystemctl } from "../../../fakes/systemctl.ts";

// The script itself, run by this machine's sh on a file tree.
let root: string;
let systemctl: ReturnType<typeof fakeSystemctl>;
const at = (name: string) => join(root, name);
const digest = (text: string) => createHash("sha256").update(text).digest("hex");
const places = () => ({ state: at("state"), lock: at("run/lock/installer.lock"), log: at("log/installer.jsonl") });
const [old, next] = ["version = 3\n", "version = 3\n# ours\n"];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "guard test "));
  for (const directory of ["state", "etc", "bin"]) mkdirSync(at(directory));
  systemctl = fakeSystemctl(at("bin"));
  writeFileSync(at("etc/config.toml"), next, { mode: 0o600 });
  writeFileSync(at("etc/config.toml.bak"), old, { mode: 0o640 });
});
afterEach(() => rmSync(root, { recursive: true }));

const arm = (order: Partial<Parameters<typeof formatOrder>[0]> = {}) =>
  writeFileSync(
    at("state/guard.armed"),
    formatOrder({
      file: at("etc/config.toml"),
      before: digest(old),
      after: digest(next),
      backup: at("etc/config.toml.bak"),
      unit: "containerd.service",
      added: [],
      ...order,
    }),
  );
const run = () => {
  writeFileSync(at("guard.sh"), guardScript(places()));
  return systemctl.run("sh", [at("guard.sh")]);
};
/** In the place of the host's program of that name. */
const program = (name: string, script: string) =>
  writeFileSync(at(`bin/${name}`), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
const fenced = (...lines: string[]) => joinFence({ before: "", after: "" }, lines);
const config = () => readFileSync(at("etc/config.toml"), "utf8");
const outcome = () => /outcome=(.*)/.exec(readFileSync(at("state/guard.fired"), "utf8"))?.[1];

test("restores the backup with its mode, restarts without waiting, and stands down", () => {
  arm();
  expect(run().code).toBe(0);
  expect(config()).toBe(old);
  expect(statSync(at("etc/config.toml")).mode & 0o777).toBe(0o640);
  expect(systemctl.calls()).toContain("--no-block restart containerd.service");
  expect(outcome()).toBe("restored");
  expect(existsSync(at("state/guard.armed"))).toBe(false);
  expect(readdirSync(at("etc"))).toEqual(["config.toml", "config.toml.bak"]);
  expect(JSON.parse(readFileSync(at("log/installer.jsonl"), "utf8"))).toMatchObject({
    event: "guard",
    outcome: "restored",
  });
});

test("its copies keep what only cp -a keeps: a file with another SELinux label than its directory's may be unreadable", () => {
  const copies = at("copies");
  program("cp", `echo "$1" >>'${copies}'\nPATH=/usr/bin:/bin exec cp "$@"`);
  arm();
  run();
  const ours = `version = 3\n${fenced("ours")}`;
  writeFileSync(at("etc/config.toml"), `${ours}# by hand\n`);
  arm({ after: digest(ours) });
  run();
  const first = readFileSync(copies, "utf8").split("\n");
  expect(first.filter((word) => word !== at("state/guard.armed"))).toEqual(["-a", "-a", ""]);
});

test("does nothing without an order, that is, after the commit", () => {
  expect(run().code).toBe(0);
  expect(config()).toBe(next);
  expect(systemctl.calls()).toEqual([]);
});

test("a backup that has changed is never put in place", () => {
  arm();
  writeFileSync(at("etc/config.toml.bak"), "\0".repeat(old.length));
  expect(run().code).toBe(1);
  expect(config()).toBe(next);
  expect(systemctl.calls()).toEqual([]);
  expect(existsSync(at("state/guard.armed"))).toBe(true);
});

test("somebody else's bytes stay", () => {
  arm();
  writeFileSync(at("etc/config.toml"), "# foreign\n");
  expect(run().code).toBe(0);
  expect(config()).toBe("# foreign\n");
  expect(outcome()).toBe("foreign");
});

test.each([
  ["was started with what the installer wrote is restarted with somebody else's bytes", 0, true],
  ["was started before the order is not", -3600, false],
  ["has loaded somebody else's bytes is not", 3600, false],
])("a containerd that %s", (_, seconds, isRestarted) => {
  arm();
  writeFileSync(at("etc/config.toml"), "# foreign\n");
  const started = Math.round((uptime() + seconds) * 1_000_000);
  const show = `[ "$1" = show ] && echo ExecMainStartTimestampMonotonic=${Math.max(1, started)}\n`;
  const recording = readFileSync(at("bin/systemctl"), "utf8").replace("\n", () => `\n${show}`);
  writeFileSync(at("bin/systemctl"), recording);
  expect(run().code).toBe(0);
  expect(outcome()).toBe("foreign");
  expect(systemctl.calls().includes("--no-block restart containerd.service")).toBe(isRestarted);
});

test("a file that became a link meanwhile is copied from where it leads, and nothing is written there", () => {
  const ours = `version = 3\n${fenced("ours")}`;
  arm({ after: digest(ours) });
  const theirs = `${ours}# by hand\n`;
  writeFileSync(at("theirs.toml"), theirs);
  rmSync(at("etc/config.toml"));
  symlinkSync(at("theirs.toml"), at("etc/config.toml"));
  expect(run().code).toBe(0);
  expect(readFileSync(at("theirs.toml"), "utf8")).toBe(theirs);
  expect(config()).toBe("version = 3\n# by hand\n");
  expect(outcome()).toBe("withdrawn");
});

test("what somebody added to our change stays, and our block is the one from before", () => {
  const [first, second] = [fenced("old"), fenced("new")].map((block) => `version = 3\n${block}`) as [string, string];
  arm({ before: digest(first), after: digest(second) });
  writeFileSync(at("etc/config.toml.bak"), first);
  writeFileSync(at("etc/config.toml"), `${second}# by hand\n`);
  expect(run().code).toBe(0);
  expect(config()).toBe(`version = 3\n# by hand\n${fenced("old")}`);
  expect(statSync(at("etc/config.toml")).mode & 0o777).toBe(0o600);
  expect(outcome()).toBe("withdrawn");
  expect(systemctl.calls()).toContain("--no-block restart containerd.service");
  expect(readdirSync(at("etc"))).toEqual(["config.toml", "config.toml.bak"]);
});

test.each([
  ["without an end", `${old}# BEGIN contrast-runtime (1)\n[debug]\n`],
  ["whose end comes before it", `# END contrast-runtime\n${old}# BEGIN contrast-runtime (1)\n[debug]\n`],
  [
    "behind a whole one",
    `# BEGIN contrast-runtime (1)\n# END contrast-runtime\n# BEGIN contrast-runtime (2)\n[debug]\n`,
  ],
])("removing a block %s removes nothing of somebody else's", (_, half) => {
  arm();
  writeFileSync(at("etc/config.toml"), half);
  expect(run().code).toBe(0);
  expect(config()).toBe(half);
  expect(outcome()).toBe("foreign");
});

test("a last line without a line end does not become part of our block", () => {
  arm({ before: digest(`${old}${fenced("old")}`) });
  writeFileSync(at("etc/config.toml.bak"), `${old}${fenced("old")}`);
  writeFileSync(at("etc/config.toml"), `${old}${fenced("new")}root = "/x"`);
  expect(run().code).toBe(0);
  expect(config()).toBe(`${old}root = "/x"\n${fenced("old")}`);
});

const [mine, other] = ["contrast-cc-metal-qemu-snp-00000002", "contrast-cc-metal-qemu-snp-00000001"];
const runtime = (name: string, ...below: string[]) =>
  [`  [plugins."x".containerd.runtimes.${name}]`, '    runtime_type = "y"', ...below, ""].join("\n");
const block = (...names: string[]) => fenced(...names.flatMap((name) => runtime(name).trimEnd().split("\n")));
const theirs = `version = 3\n[plugins]\n${runtime("nvidia", "    # theirs")}`;

test.each([
  ["tables", `${theirs}${runtime(other)}`, runtime(mine, '    annotations = [\n      "a",\n    ]')],
  ["a proxy plugin", theirs, `[proxy_plugins.tardev-${mine}]\n  type = "snapshot"\n`],
  ["an edited block", theirs, `# BEGIN contrast-runtime (1)\n${runtime(mine)}`],
])("%s of our change in a file that somebody wrote anew go, and everything else stays", (_, before, added) => {
  arm({ added: [mine] });
  const after = `[debug]\n  level = "${mine.slice(0, 8)}"\n# ${mine}\n`;
  writeFileSync(at("etc/config.toml"), `${before}${added}${after}`);
  expect(run().code).toBe(0);
  expect(config()).toBe(`${before}${added.startsWith("#") ? `${added.split("\n", 1)}\n` : ""}${after}`);
  expect(outcome()).toBe("withdrawn");
  expect(systemctl.calls()).toContain("--no-block restart containerd.service");
  expect(readdirSync(at("etc"))).toEqual(["config.toml", "config.toml.bak"]);
});

test("a block as we wrote it goes together with our tables outside of it", () => {
  arm({ added: [mine], before: digest(old) });
  writeFileSync(at("etc/config.toml"), `${old}${block(mine)}${runtime(mine)}[debug]\n`);
  expect(run().code).toBe(0);
  expect(config()).toBe(`${old}[debug]\n`);
});

test.each([
  ["a file", old],
  ["no file", undefined],
])("what cannot be taken apart is set aside, and %s is there as before", (_, before) => {
  const inline = `${old}runtimes = { runc = {}, ${mine} = {} }\n`;
  arm({ added: [mine], before: before && digest(before), backup: before && at("etc/config.toml.bak") });
  writeFileSync(at("etc/config.toml"), inline);
  expect(run().code).toBe(0);
  expect(existsSync(at("etc/config.toml")) ? config() : undefined).toBe(before);
  const aside = readdirSync(at("etc")).filter((name) => name.endsWith(".foreign"));
  expect(aside.map((name) => readFileSync(at(`etc/${name}`), "utf8"))).toEqual([inline]);
  expect(outcome()).toBe("set-aside");
  expect(readFileSync(at("log/installer.jsonl"), "utf8")).toContain(`"aside":"${at(`etc/${aside[0]}`)}"`);
});

test("a block from before is taken only from a backup that is as it was", () => {
  const [first, second] = [`${old}${block(other)}`, `${old}${block(other, mine)}`];
  arm({ before: digest(first), after: digest(second), added: [mine] });
  writeFileSync(at("etc/config.toml.bak"), first.replace(other, "evil"));
  writeFileSync(at("etc/config.toml"), `${second}# by hand\n`);
  expect(run().code).toBe(0);
  expect(config()).not.toContain("evil");
  expect(config()).not.toContain(mine);
  expect(config()).toContain(runtime(other));
  expect(config()).toContain("# by hand\n");
});

test("new tables go also if the backup has changed and nobody else wrote", () => {
  const after = `${old}${runtime(mine)}`;
  arm({ after: digest(after), added: [mine] });
  writeFileSync(at("etc/config.toml"), after);
  writeFileSync(at("etc/config.toml.bak"), "\0");
  expect(run().code).toBe(0);
  expect(config()).toBe(old);
});

test.each(["grep", "sed", "sha256sum"])("a %s that fails now and then loses nothing", (name) => {
  const [first, second] = [`${old}${block(other)}`, `${old}${block(other, mine)}`];
  const real = ["/usr/bin", "/bin"].map((path) => join(path, name)).find((path) => existsSync(path));
  for (let failing = 1; failing <= 12; failing += 1) {
    arm({ before: digest(first), after: digest(second), added: [mine] });
    writeFileSync(at("etc/config.toml.bak"), first);
    writeFileSync(at("etc/config.toml"), `${second}# by hand\n`);
    writeFileSync(at("count"), "");
    const count = `echo >>'${at("count")}'; [ "$(wc -l <'${at("count")}')" -ne ${failing} ] || exit 2`;
    program(name, `${count}\nexec ${real} "$@"`);
    for (let tick = 0; tick < 3 && existsSync(at("state/guard.armed")); tick += 1) run();
    expect(existsSync(at("state/guard.armed"))).toBe(false);
    for (const part of [runtime(other), "# by hand\n"]) expect(config(), `${name} ${failing}`).toContain(part);
    expect(config(), `${name} ${failing}`).not.toContain(mine);
    rmSync(at(`bin/${name}`));
  }
});

test("what somebody writes while the backup is copied stays", () => {
  arm();
  const config = at("etc/config.toml");
  program("cp", `echo "# foreign" >>'${config}'\nexec /bin/cp "$@"`);
  expect(run().code).toBe(1);
  rmSync(at("bin/cp"));
  expect(run().code).toBe(0);
  expect(readFileSync(config, "utf8")).toBe(`${next}# foreign\n`);
  expect(outcome()).toBe("foreign");
  expect(readdirSync(at("etc"))).toEqual(["config.toml", "config.toml.bak"]);
});

test("a file that cannot be read leaves the order as it stands", () => {
  arm();
  program("sha256sum", "exit 1");
  expect(run().code).toBe(1);
  rmSync(at("bin/sha256sum"));
  expect(run().code).toBe(0);
  expect(config()).toBe(old);
});

test("without room for a copy, the backup becomes the file: two names of one file would change together", () => {
  arm();
  program("cp", "exit 1");
  expect(run()).toMatchObject({ code: 0, stderr: expect.stringContaining("no room for a copy") });
  expect(config()).toBe(old);
  expect(statSync(at("etc/config.toml")).nlink).toBe(1);
  expect(readdirSync(at("etc"))).toEqual(["config.toml"]);
  expect(existsSync(at("state/guard.armed"))).toBe(false);
  expect(existsSync(at("state/guard.fired"))).toBe(true);
});

test("if the old bytes are already in place, containerd is restarted with them", () => {
  arm();
  writeFileSync(at("etc/config.toml"), old);
  run();
  expect(outcome()).toBe("unchanged");
  expect(systemctl.calls()).toContain("--no-block restart containerd.service");
});

test("a file that we created is removed, a file that we removed is restored", () => {
  arm({ before: undefined, backup: undefined });
  run();
  expect(existsSync(at("etc/config.toml"))).toBe(false);
  arm({ after: undefined });
  run();
  expect(config()).toBe(old);
});

test("a distribution that restarts containerd itself is not restarted", () => {
  arm({ unit: undefined });
  run();
  expect(config()).toBe(old);
  expect(systemctl.calls().filter((call) => call.includes("restart"))).toEqual([]);
});

test("does nothing while an installer is alive, and acts once it is dead", async () => {
  arm();
  mkdirSync(at("run/lock"), { recursive: true });
  const holder = spawn("flock", [places().lock, "cat"], { stdio: ["pipe", "pipe", "inherit"] });
  holder.stdin.write("held\n");
  await once(holder.stdout, "data");
  expect(run().code).toBe(0);
  expect(config()).toBe(next);
  holder.stdin.end();
  await once(holder, "close");
  run();
  expect(config()).toBe(old);
});

test("acts without the lock once whoever holds it has not finished for half an hour", async () => {
  arm();
  mkdirSync(at("run/lock"), { recursive: true });
  const holder = spawn("flock", [places().lock, "cat"], { stdio: ["pipe", "pipe", "inherit"] });
  holder.stdin.write("held\n");
  await once(holder.stdout, "data");
  const ago = (seconds: number) => utimesSync(at("state/guard.armed"), 0, Date.now() / 1000 - seconds);
  ago(1_700);
  expect(run().code).toBe(0);
  expect(config()).toBe(next);
  ago(1_801);
  expect(run().code).toBe(0);
  expect(config()).toBe(old);
  holder.stdin.end();
  await once(holder, "close");
});

test("makes the lock's directory its own alone", () => {
  arm();
  run();
  expect(statSync(at("run/lock")).mode & 0o777).toBe(0o700);
});

test("does not write its log into a directory that is a link", () => {
  arm();
  mkdirSync(at("elsewhere"));
  symlinkSync(at("elsewhere"), at("log"));
  expect(run().code).toBe(0);
  expect(config()).toBe(old);
  expect(readdirSync(at("elsewhere"))).toEqual([]);
});

test("if systemctl fails, the order stands and the next run finishes it", () => {
  arm();
  systemctl = fakeSystemctl(at("bin"), 1);
  expect(run().code).toBe(1);
  expect(config()).toBe(old);
  expect(existsSync(at("state/guard.armed"))).toBe(true);
  systemctl = fakeSystemctl(at("bin"));
  expect(run().code).toBe(0);
  expect(existsSync(at("state/guard.armed"))).toBe(false);
});

test.each([
  ["restores", () => undefined],
  ["withdraws", () => writeFileSync(at("etc/config.toml"), `${old}${fenced("ours")}# x\n`)],
])("what it %s is synced before it gets the file's name, and so is the name, before it stands down", (_, change) => {
  arm();
  change();
  for (const name of ["sync", "mv"]) program(name, `echo "${name} $*" >>'${at("calls")}'\nexec /bin/${name} "$@"`);
  expect(run().code).toBe(0);
  const staged = at("etc/.config.toml.contrast-guard");
  expect(readFileSync(at("calls"), "utf8").trim().split("\n")).toEqual([
    `sync ${staged}`,
    `mv -f ${staged} ${at("etc/config.toml")}`,
    `sync ${at("etc")}`,
    `mv -f ${at("state/guard.firing")} ${at("state/guard.fired")}`,
    `sync ${at("state")}`,
  ]);
});

test("that a file which was not there before is gone again is synced before it stands down", () => {
  arm({ before: undefined, backup: undefined });
  program("sync", `[ -e '${at("etc/config.toml")}' ] || echo "sync $*" >>'${at("calls")}'\nexec /bin/sync "$@"`);
  expect(run().code).toBe(0);
  expect(existsSync(at("etc/config.toml"))).toBe(false);
  expect(readFileSync(at("calls"), "utf8").trim().split("\n")).toEqual([`sync ${at("etc")}`, `sync ${at("state")}`]);
});
