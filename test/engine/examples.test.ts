import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { packageRoot } from "../../tools/files/project.ts";
import { check } from "../../tools/process/run.ts";
import { secretCommands } from "../example-secrets.ts";
import { examples } from "../examples.ts";
import { type EngineProject, engineProject } from "./harness.ts";

/* Each example becomes a stack of the user's own, with a backend and a passphrase that nobody else knows. */

let project: EngineProject;

beforeAll(async () => {
  project = await engineProject({ directory: packageRoot, env: { PULUMI_CONFIG_PASSPHRASE: "the user's own" } });
  Object.assign(project.env, {
    HOME: project.home,
    KUBECONFIG: join(project.home, "no-kubeconfig"),
    // What Azure would answer to somebody who is logged in.
    AZURE_STAND_IN_KUBECONFIG: join(project.home, "aks"),
  });
  const files = {
    ".docker/config.json": '{"auths":{}}',
    ".ssh/id_ed25519": "a key\n",
    aks: "apiVersion: v1\nkind: Config\n",
  };
  for (const [file, text] of Object.entries(files)) {
    await mkdir(join(project.home, file, ".."), { recursive: true });
    await writeFile(join(project.home, file), text);
  }
});
afterAll(() => project?.remove());

describe.each(examples)("%s", (stack) => {
  const file = `Pulumi.${stack}.yaml`;

  test("has nobody's secrets", async () => {
    expect(await readFile(join(packageRoot, "examples", file), "utf8")).not.toMatch(/secure:|encryptionsalt:/);
  });

  test("previews after the commands in its head", async () => {
    const example = await readFile(join(packageRoot, "examples", file), "utf8");
    await writeFile(join(project.directory, file), example);
    project.env.PULUMI_STACK = stack;
    await project.mustWork(project.pulumi("stack", "init", stack));
    const commands = secretCommands(example);
    for (const { command } of commands)
      await check("sh", ["-c", command], { cwd: project.directory, env: project.env });
    const { stdout } = await project.mustWork(project.preview());
    expect(stdout).toContain("to create");
    const text = await readFile(join(project.directory, file), "utf8");
    expect(text.match(/secure: /g) ?? []).toHaveLength(commands.length);
  });
});

test("a stack whose secrets were not set says which are missing, and how to set them", async () => {
  const example = await readFile(join(packageRoot, "examples", "Pulumi.metal-qemu-snp.yaml"), "utf8");
  await writeFile(join(project.directory, "Pulumi.without.yaml"), example);
  project.env.PULUMI_STACK = "without";
  await project.mustWork(project.pulumi("stack", "init", "without"));
  const { code, stdout } = await project.preview();
  expect(code).not.toBe(0);
  expect(stdout).toContain(
    "is missing. Expected a string. Set it: pulumi config set --secret --path 'groups.snp.nodes.ssh.privateKey'.",
  );
});

describe("a preview elsewhere", () => {
  const stack = "runtime-settings";
  let here: unknown[];
  const planned = async () => {
    const steps = await project.plan();
    return steps
      .map(({ op, urn, newState }) => ({ op, urn, inputs: newState?.inputs }))
      .sort((a, b) => (a.urn < b.urn ? -1 : 1));
  };
  beforeAll(async () => {
    const file = `Pulumi.${stack}.yaml`;
    await writeFile(join(project.directory, file), await readFile(join(packageRoot, "examples", file), "utf8"));
    project.env.PULUMI_STACK = stack;
    // It exists already where the test of this example ran before.
    await project.pulumi("stack", "init", stack);
    here = await planned();
  });

  /** Node says that it is elsewhere; the machine, the engine and the file system stay Linux's. */
  test.each(["darwin/arm64", "win32/x64", "linux/arm64"])(
    "%s has the same preview as Linux on x86-64",
    async (platform) => {
      const elsewhere = {
        NODE_OPTIONS: `--require ${join(packageRoot, "test", "fakes", "platform.cjs")}`,
        FAKE_PLATFORM: platform,
      };
      Object.assign(project.env, elsewhere);
      try {
        expect(await planned()).toEqual(here);
      } finally {
        for (const name of Object.keys(elsewhere)) delete project.env[name];
      }
    },
  );
});
