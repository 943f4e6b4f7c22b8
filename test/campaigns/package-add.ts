// package-add.ts [LANGUAGE …] [--way=git|clone|installed]: `pulumi package add` as a user calls it, in each language's
// example (yaml, python, go): on a git reference that a local server has by HTTPS, on a folder with a clone, and on the
// folder of the installed package. Then the example runs with what the command made: preview, up, nothing to change,
// destroy, against a real API server. Needs root. The first `pulumi` on PATH must be a released one of the pinned version or
// newer, with its language hosts beside it. npm and PyPI or the Go module proxy are reached. A minute or two for each way
// and language. What is committed is what is tried.
import { execFileSync } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readdir, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { packPackage } from "../../tools/dev/release/package.ts";
import { resolveEngine } from "../../tools/engine/engine.ts";
import { packageRoot } from "../../tools/files/project.ts";
import { check } from "../../tools/process/run.ts";
import { goCommand } from "../../tools/programs/go.ts";
import { startApiServer } from "../engine/api-server.ts";
import { startNamedGitServer } from "../engine/git-server.ts";
import { engineProject } from "../engine/harness.ts";
import { fixtureHandler } from "../unit/runtime/fixtures.ts";
import { expectations } from "./real-vm/report.ts";

const { positionals, values } = parseArgs({ allowPositionals: true, options: { way: { type: "string" } } });
const languages = positionals.length > 0 ? positionals : ["yaml", "python", "go"];
const { tell, expect, failures } = expectations();

const engine = await resolveEngine(tell);
const besides = await readdir(dirname(engine.command));
const missing = languages.filter((language) => !besides.includes(`pulumi-language-${language}`));
if (engine.origin !== "PATH" || missing.length > 0)
  throw new Error(
    `The first pulumi on PATH (${engine.command}) has no language host for ${missing.join(", ")} beside it.`,
  );

const directory = await mkdtemp(join(tmpdir(), "package-add-"));
const { version } = JSON.parse(await readFile(join(packageRoot, "package.json"), "utf8")) as { version: string };

/** The clone as it is pushed: what is committed, with a release's tag. */
const repository = join(directory, "git", "example", "contrast-runtime.git");
await mkdir(dirname(repository), { recursive: true });
await check("git", ["clone", "--quiet", "--bare", "--no-tags", packageRoot, repository]);
await check("git", ["-C", repository, "tag", `v${version}`]);
const git = await startNamedGitServer(join(directory, "git"));

const clone = join(directory, "clone");
await check("git", ["clone", "--quiet", repository, clone]);

/** The package as npm installs it. */
async function installed(): Promise<string> {
  const project = join(directory, "installed");
  await mkdir(project);
  await writeFile(join(project, "package.json"), "{}\n");
  const archive = await packPackage(directory, "https://github.com/example/contrast-runtime");
  tell("npm install of the packed package");
  execFileSync("npm", ["install", "--no-audit", "--no-fund", join(directory, archive)], { cwd: project });
  return join(project, "node_modules", "contrast-runtime");
}

const all = {
  git: async () => `${git.address}/example/contrast-runtime.git@v${version}`,
  clone: async () => clone,
  installed,
};
const ways: [name: string, reference: string][] = [];
for (const [name, reference] of Object.entries(all))
  if (values.way === undefined || values.way === name) ways.push([name, await reference()]);

const server = await startApiServer();
const handler = fixtureHandler("kata-rs");
const goDirectory = join((await check(await goCommand(), ["env", "GOROOT"])).trim(), "bin");

async function tryIn(language: string, way: string, reference: string): Promise<void> {
  const what = `${language}, ${way}`;
  const project = await engineProject({
    directory: join(packageRoot, "examples", "languages", language),
    prefix: git.prefix,
    config: {
      installerImage: `registry.example.com/contrast-node-installer@sha256:${"a".repeat(64)}`,
      payload: join(packageRoot, "test", "fixtures", "manifests", "fixture-kata-rs.json"),
    },
  });
  try {
    await writeFile(join(project.home, "kubeconfig"), server.kubeconfig);
    Object.assign(project.env, {
      KUBECONFIG: join(project.home, "kubeconfig"),
      SSL_CERT_FILE: git.authorities,
      PATH: `${project.env.PATH}${delimiter}${goDirectory}`,
    });
    // The command adds the package where a user would want it.
    delete project.env.PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION;
    // The command writes into the example's files, which are links into the clone.
    const names = await readdir(project.directory);
    for (const name of names) {
      const file = join(project.directory, name);
      const target = await realpath(file);
      if (target === file) continue;
      await rm(file);
      await copyFile(target, file);
    }
    const works = async (step: string, ...args: string[]) => {
      const { code, stdout, stderr } = await project.pulumi(...args);
      if (code !== 0) tell(`${stdout}${stderr}`);
      expect(`${what}: ${step}`, code === 0);
      return `${stdout}${stderr}`;
    };
    // Of a repository, the SDK is named after its owner, too.
    if (way === "git")
      for (const name of ["__main__.py", "main.go"].filter((name) => names.includes(name))) {
        const text = await readFile(join(project.directory, name), "utf8");
        const owned = text
          .replace("import pulumi_contrast_runtime", "import example_contrast_runtime")
          .replace('"example.com/pulumi-', '"github.com/example/pulumi-');
        await writeFile(join(project.directory, name), owned);
      }
    const added = await works("pulumi package add", "package", "add", reference);
    tell(added.trim());
    tell(await readFile(join(project.directory, "Pulumi.yaml"), "utf8"));
    await works("pulumi install", "install");
    await works("preview", "preview");
    await works("up", "up", "--yes", "--skip-preview");
    const outputs = await project.outputs();
    expect(
      `${what}: handlers`,
      JSON.stringify(outputs.handlers) === JSON.stringify({ edge: [handler], workers: [handler] }),
    );
    await works("nothing to change", "preview", "--expect-no-changes");
    await works("destroy", "destroy", "--yes", "--skip-preview");
    expect(`${what}: no class is left`, !(await server.kubectl("get", "runtimeclass", "-o", "name")).includes(handler));
  } finally {
    await project.remove();
  }
}

try {
  for (const language of languages) for (const [way, reference] of ways) await tryIn(language, way, reference);
} finally {
  await server.stop();
  await git.stop();
  await rm(directory, { recursive: true, force: true });
}
tell(failures() === 0 ? "All held." : `${failures()} failed.`);
process.exitCode = failures() === 0 ? 0 : 1;
