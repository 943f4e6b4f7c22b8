/**
 * What the engine needs for programs in other languages than TypeScript: the official language hosts, SDKs and generators
 * of SDKs, each in the newest version that is published as a Go module or on PyPI. Made once, into the cache.
 */
import { mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { PackageProvider } from "../../components/provider.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { engineVersion } from "../../tools/engine/versions.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { check } from "../../tools/process/run.ts";
import { cached } from "../../tools/programs/cache.ts";
import { type GoProgram, goCommand, goProgram } from "../../tools/programs/go.ts";

const modules = join(import.meta.dirname, "modules");

/** Those for Python and Go, of the last version whose module held them. They work with today's engine and SDKs. */
const hosts: GoProgram = {
  name: "pulumi-language-hosts",
  version: "3.65.0",
  module: join(modules, "pulumi-language-hosts"),
  packages: [
    "github.com/pulumi/pulumi/sdk/v3/go/pulumi-language-go",
    "github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python",
  ],
  duration: "about a minute",
};

const yaml: GoProgram = {
  name: "pulumi-language-yaml",
  version: "1.25.0",
  module: join(modules, "pulumi-language-yaml"),
  packages: ["github.com/pulumi/pulumi-yaml/cmd/pulumi-language-yaml"],
  duration: "about 3 minutes",
};

const generator: GoProgram = {
  name: "pulumi-sdk",
  version: engineVersion,
  module: join(modules, "pulumi-sdk"),
  packages: ["."],
  duration: "about a minute where the engine was built",
};

/** The engine's PULUMI_HOME gets the host. */
type Installer = (home: string) => Promise<void>;

async function link(home: string, name: string, version: string, files: string[]): Promise<void> {
  const directory = join(home, "plugins", `language-${name}-v${version}`);
  await mkdir(directory, { recursive: true });
  for (const file of files) await symlink(file, join(directory, file.slice(file.lastIndexOf("/") + 1)));
}

export const installYaml: Installer = async (home) =>
  link(home, "yaml", yaml.version, [join(await goProgram(yaml, toStderr), "pulumi-language-yaml")]);

export const installGo: Installer = async (home) =>
  link(home, "go", hosts.version, [join(await goProgram(hosts, toStderr), "pulumi-language-go")]);

/** The host looks beside itself for the script that runs programs. */
export const installPython: Installer = async (home) => {
  const built = await goProgram(hosts, toStderr);
  const script = "python/cmd/pulumi-language-python-exec";
  const sdk = await check(
    await goCommand(),
    ["list", "-m", "-mod=readonly", "-f", "{{.Dir}}", "github.com/pulumi/pulumi/sdk/v3"],
    { cwd: hosts.module, env: { ...process.env, GOFLAGS: "-mod=readonly", GOWORK: "off" } },
  );
  const python = await cached(
    {
      name: "pulumi-language-python",
      inputs: built,
      make: async (fresh) => {
        await check("cp", [join(built, "pulumi-language-python"), join(sdk.trim(), script), fresh]);
        await check("chmod", ["755", join(fresh, "pulumi-language-python-exec")]);
      },
    },
    toStderr,
  );
  const names = ["pulumi-language-python", "pulumi-language-python-exec"];
  await link(
    home,
    "python",
    hosts.version,
    names.map((name) => join(python, name)),
  );
};

/** A virtual environment with the official SDK and what a generated one imports. */
async function pythonEnvironment(): Promise<string> {
  const requirements = join(modules, "python-packages", "requirements.txt");
  const version = await check("python3", ["--version"]).catch(() => {
    throw new Refusal(
      "python-missing",
      "Python 3.10 or newer is needed, with its module venv, to test programs in it.",
    );
  });
  return await cached(
    {
      name: "python",
      inputs: [version, await readFile(requirements, "utf8")],
      make: async (fresh) => {
        toStderr("Installing Pulumi's SDK for Python (about a minute) …");
        await check("python3", ["-m", "venv", fresh]);
        const pip = ["-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:"];
        await check(join(fresh, "bin", "python3"), [...pip, "-r", requirements]);
      },
    },
    toStderr,
  );
}

/** The package's SDK as `pulumi package add` makes it: the folder of a Go module, or one for PYTHONPATH. */
async function generatedSdk(language: "go" | "python"): Promise<string> {
  const program = join(await goProgram(generator, toStderr), generator.name);
  const python = language === "python" ? join(await pythonEnvironment(), "bin", "python3") : undefined;
  const { schema } = new PackageProvider();
  return await cached(
    {
      name: `contrast-runtime-sdk-${language}`,
      inputs: [program, python, schema],
      make: async (fresh) => {
        const [file, sources] = [join(fresh, "schema.json"), join(fresh, "sources")];
        await writeFile(file, schema);
        await check(program, [file, language, python === undefined ? fresh : sources]);
        if (python === undefined) return;
        const pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"];
        await check(python, [...pip, "--target", fresh, sources]);
      },
    },
    toStderr,
  );
}

interface Project {
  directory: string;
  env: Record<string, string>;
}

/** What `pulumi install` does. This host gets no options, so it takes the first `python3`. */
export async function preparePython({ env }: Project): Promise<void> {
  env.PATH = `${join(await pythonEnvironment(), "bin")}:${env.PATH}`;
  env.PYTHONPATH = await generatedSdk("python");
}

/** What `pulumi package add` does. The flags are those of `goProgram`, so that Go's cache has most of what is compiled. */
export async function prepareGo({ directory, env }: Project): Promise<void> {
  const go = await goCommand();
  env.PATH = `${join((await check(go, ["env", "GOROOT"])).trim(), "bin")}:${env.PATH}`;
  Object.assign(env, {
    CGO_ENABLED: "0",
    GOFLAGS: "-mod=mod -trimpath -buildvcs=false -gcflags=all=-dwarf=false",
    GOWORK: "off",
  });
  // They may be links into the clone.
  for (const name of ["go.mod", "go.sum"]) {
    const text = await readFile(join(directory, name));
    await rm(join(directory, name));
    await writeFile(join(directory, name), text);
  }
  const module = "example.com/pulumi-contrast-runtime/sdk/go";
  const edits = [`-require=${module}@v0.0.0`, `-replace=${module}=${await generatedSdk("go")}`];
  await check(go, ["mod", "edit", ...edits], { cwd: directory });
}

/** The package as the engine lays it out that fetched it from a repository; with its dependencies beside it. */
export async function installPackage(home: string): Promise<void> {
  const clone = dirname(dirname(import.meta.dirname));
  const { version } = new PackageProvider();
  const directory = join(home, "plugins", `resource-contrast-runtime-v${version}`);
  await mkdir(directory, { recursive: true });
  for (const name of ["package.json", "pulumi-resource-contrast-runtime", "schema.json", "tools"])
    await symlink(join(clone, name), join(directory, name));
}
