// java-program.ts: the example in Java against a real API server, as test/engine/languages.test.ts runs the others: it is
// brought up, changes nothing when it runs again, gets another payload, is told its mistakes, and is destroyed. Needs a JDK
// from 17 on and Maven, which fetches Pulumi's SDK; generator and language host are the newest whose modules can be
// verified (0.9.9). A few minutes.
import { copyFile, mkdir, readdir, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PackageProvider } from "../../components/provider.ts";
import { packageRoot } from "../../tools/files/project.ts";
import { check } from "../../tools/process/run.ts";
import { type GoProgram, goProgram } from "../../tools/programs/go.ts";
import { startApiServer } from "../engine/api-server.ts";
import { engineProject } from "../engine/harness.ts";
import { installPackage } from "../engine/language-hosts.ts";
import { fixtureHandler } from "../unit/runtime/fixtures.ts";
import { expectations } from "./real-vm/report.ts";

const { tell, expect, failures } = expectations();
const version = "0.9.9";
const command = "github.com/pulumi/pulumi-java/pkg/cmd";
const java: GoProgram = {
  name: "pulumi-java",
  version,
  module: join(import.meta.dirname, "pulumi-java"),
  packages: [`${command}/pulumi-language-java`, `${command}/pulumi-java-gen`],
  ldflags: [`-X github.com/pulumi/pulumi-java/pkg/version.Version=v${version}`],
  duration: "about a minute",
};
const programs = await goProgram(java, tell);
const fixture = (name: string) => join(packageRoot, "test", "fixtures", "manifests", `fixture-${name}.json`);

const server = await startApiServer();
const project = await engineProject({
  directory: join(packageRoot, "examples", "languages", "java"),
  plugins: async (home) => {
    await installPackage(home);
    const directory = join(home, "plugins", `language-java-v${version}`);
    await mkdir(directory, { recursive: true });
    await copyFile(join(programs, "pulumi-language-java"), join(directory, "pulumi-language-java"));
  },
  config: {
    installerImage: `registry.example.com/contrast-node-installer@sha256:${"a".repeat(64)}`,
    payload: fixture("kata-rs"),
  },
});
try {
  await writeFile(join(project.home, "kubeconfig"), server.kubeconfig);
  Object.assign(project.env, { KUBECONFIG: join(project.home, "kubeconfig"), HOME: process.env.HOME ?? "" });
  // Maven writes beside the program, and the mistakes below are written into it.
  for (const name of await readdir(project.directory)) {
    const [link, target] = [join(project.directory, name), await realpath(join(project.directory, name))];
    if (link === target) continue;
    await rm(link);
    await check("cp", ["-r", target, link]);
  }
  // As `pulumi package add` does. The generator takes every path for one below the directory that it is called in.
  const provider = new PackageProvider();
  await writeFile(join(project.home, "schema.json"), provider.schema);
  const generate = ["generate", "--schema", "schema.json", "--out", "program/sdks/contrast-runtime", "--build", "none"];
  await check(join(programs, "pulumi-java-gen"), generate, { cwd: project.home });
  // This generator leaves it to the build.
  const resources = join(project.directory, "sdks/contrast-runtime/src/main/resources/com/pulumi/contrast-runtime");
  await mkdir(resources, { recursive: true });
  await writeFile(join(resources, "version.txt"), provider.version);

  const works = async (step: string, ...args: string[]) => {
    const { code, stdout, stderr } = await project.pulumi(...args);
    if (code !== 0) tell(`${stdout}${stderr}`);
    expect(step, code === 0);
  };
  const isServed = async (step: string, name: string) => {
    const handler = fixtureHandler(name);
    const { handlers } = await project.outputs();
    const wanted = { edge: [handler], workers: [handler] };
    expect(`${step}: its handlers`, JSON.stringify(handlers) === JSON.stringify(wanted));
    const classes = await server.kubectl("get", "runtimeclass", "-o", "name");
    expect(`${step}: its class`, classes.includes(handler));
  };
  await works("preview", "preview");
  await works("up", "up", "--yes", "--skip-preview");
  await isServed("up", "kata-rs");
  await works("nothing to change", "preview", "--expect-no-changes");

  const main = join(project.directory, "src", "main", "java", "confidential", "App.java");
  const text = await readFile(main, "utf8");
  await writeFile(main, text.replace(".minimumNodes(0) //", ".minimumNodes(-1).atOnce(0) //"));
  const { code, stdout, stderr } = await project.preview();
  const said = stdout + stderr;
  tell(said);
  const told = ["groups[0].minimumNodes: -1 must be 0 or more.", "groups[0].atOnce: 0 must be 1 or more."];
  expect("mistakes are told by their paths", code !== 0 && told.every((sentence) => said.includes(sentence)));
  // What Java's own SDK prints of the program is not our business.
  expect("without a stack of ours", !/^\s+at .*\.[jt]s:\d+:\d+/m.test(said));
  const acknowledged = '.manifest(manifest).acknowledgedAdvisories("GHSA-fmg6-v47x-52wr").build();';
  await writeFile(main, text.replace(".manifest(manifest).build();", acknowledged));

  await works("config", "config", "set", "payload", fixture("contrast-go-next"));
  await works("another payload", "up", "--yes", "--skip-preview");
  await isServed("another payload", "contrast-go-next");
  await works("destroy", "destroy", "--yes", "--skip-preview");
  const classes = await server.kubectl("get", "runtimeclass", "-o", "name");
  expect("no class is left", !classes.includes("contrast-cc-"));
} finally {
  await project.remove();
  await server.stop();
}
tell(failures() === 0 ? "All held." : `${failures()} failed.`);
process.exitCode = failures() === 0 ? 0 : 1;
