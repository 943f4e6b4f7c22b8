import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { packageRoot } from "../../tools/files/project.ts";
import { run } from "../../tools/process/run.ts";

/* `npm run pulumi` with the backend, the login and the passphrase that the user has. */

let home: string;
const stack = `backend-${process.pid}`;
const local = join(packageRoot, ".local", "state", ".pulumi", "stacks", "contrast-runtime");
const file = join(packageRoot, `Pulumi.${stack}.yaml`);

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "contrast-backend-"));
});
afterAll(async () => {
  await rm(home, { recursive: true });
  await rm(file, { force: true });
});

/** As npm starts it, without the packages' check. */
function pulumi(env: Record<string, string>, ...words: string[]) {
  const script = join(packageRoot, "tools", "dev", "pulumi.ts");
  const { PULUMI_BACKEND_URL: _, PULUMI_STACK: __, PULUMI_CONFIG_PASSPHRASE: ___, ...inherited } = process.env;
  const own = { ...inherited, PULUMI_HOME: join(home, "pulumi"), ...env } as Record<string, string>;
  return run(process.execPath, [script, "--non-interactive", ...words], { env: own });
}
const stacks = (directory: string) => readdir(directory).catch(() => []);

test("the user's backend holds the stacks that are made, with the user's passphrase", async () => {
  const backend = join(home, "states");
  await mkdir(backend);
  const env = { PULUMI_BACKEND_URL: pathToFileURL(backend).href };
  const without = await pulumi(env, "stack", "init", stack);
  expect(without.code).not.toBe(0);
  expect(without.stderr).toContain("PULUMI_CONFIG_PASSPHRASE");

  const made = await pulumi({ ...env, PULUMI_CONFIG_PASSPHRASE: "hunter2" }, "stack", "init", stack);
  expect(made).toMatchObject({ code: 0 });
  expect(await stacks(join(backend, ".pulumi", "stacks", "contrast-runtime"))).toContain(`${stack}.json`);
  expect(await stacks(local)).not.toContain(`${stack}.json`);
});

test("without a name it is the dev stack, whatever the user's backend has selected, and the screen says which", async () => {
  const backend = join(home, "selected");
  await mkdir(backend);
  const env = { PULUMI_BACKEND_URL: pathToFileURL(backend).href, PULUMI_CONFIG_PASSPHRASE: "hunter2" };
  const production = `${stack}-production`;
  try {
    const made = await pulumi(env, "stack", "init", production);
    expect(made).toMatchObject({ code: 0, stderr: expect.stringContaining(`Stack ${production}, kept where your `) });
    const unnamed = await pulumi(env, "stack", "--show-name");
    expect(unnamed.stderr).toContain("Stack dev, kept in this clone.");
    expect(unnamed.stdout).not.toContain(production);
  } finally {
    await rm(join(packageRoot, `Pulumi.${production}.yaml`), { force: true });
  }
});

test("a login counts as well, and a stack of the clone stays the clone's", async () => {
  const backend = join(home, "logged-in");
  await mkdir(backend);
  const passphrase = { PULUMI_CONFIG_PASSPHRASE: "hunter2" };
  const [here, elsewhere] = [`${stack}-here`, `${stack}-there`];
  try {
    expect(await pulumi(passphrase, "stack", "init", here)).toMatchObject({ code: 0 });
    expect(await stacks(local)).toContain(`${here}.json`);

    const login = await pulumi(
      { ...passphrase, PULUMI_STACK: elsewhere, PULUMI_BACKEND_URL: pathToFileURL(backend).href },
      "login",
    );
    expect(login).toMatchObject({ code: 0 });
    expect(existsSync(join(home, "pulumi", "credentials.json"))).toBe(true);
    expect(await pulumi(passphrase, "stack", "init", elsewhere)).toMatchObject({ code: 0 });
    expect(await stacks(join(backend, ".pulumi", "stacks", "contrast-runtime"))).toContain(`${elsewhere}.json`);
    expect(await pulumi(passphrase, "stack", "ls", "--stack", here)).toMatchObject({
      code: 0,
      stdout: expect.stringContaining(here),
    });
  } finally {
    await pulumi(passphrase, "stack", "rm", "--yes", here);
    for (const name of [here, elsewhere]) await rm(join(packageRoot, `Pulumi.${name}.yaml`), { force: true });
  }
});
