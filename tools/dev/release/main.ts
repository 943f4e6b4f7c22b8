// npm run release -- COMMAND: what a release consists of, and its publication; .github/workflows/release.yml runs these.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { exitWith, run, Verb } from "../../cli/command.ts";
import { main as product } from "../../cli/main.ts";
import { repository } from "../../cli/values.ts";
import { exitCodes } from "../../process/exit-codes.ts";
import { toStderr } from "../../process/progress.ts";

interface Pin {
  platform: string;
  flavour: string;
  kataVersion: string;
}

const payloads = () =>
  new Verb("payloads")
    .description(
      "Fetches and checks the payloads that the release's image holds: those of payloads.json, in this folder.",
    )
    .option("--mirror <url>", "directory that holds the releases' assets instead of GitHub")
    .action(async ({ mirror }) => {
      const pins = JSON.parse(await readFile(join(import.meta.dirname, "payloads.json"), "utf8")) as Pin[];
      for (const { platform, flavour, kataVersion } of pins) {
        // Not where manifests are committed: what is released is built from a checkout without other files.
        const output = join(".local", "release", `${platform}-${flavour}-${kataVersion}.json`);
        const words = ["--platform", platform, "--flavour", flavour, "--kata-version", kataVersion, "--output", output];
        const code = await product(["lock", "kata-release", ...words, ...(mirror ? ["--mirror", mirror] : [])]);
        if (code !== exitCodes.done) exitWith(code);
      }
    });

const build = () =>
  new Verb("build")
    .description(
      "Builds everything that is released, and prints the image's digest. The same commit gives the same bytes.",
    )
    .requiredOption("--output <directory>", "where it goes; what lies there is replaced")
    .requiredOption("--repository <url>", "address of the sources, such as https://github.com/OWNER/NAME")
    .option("--tag <name>", "refuse unless the sources are this tag's; without it, a rehearsal")
    .action(async (order) => console.log(await (await import("./build.ts")).buildRelease(order, toStderr)));

const publish = () =>
  new Verb("publish")
    .description("Signs and pushes the image, publishes the npm package, and prints the image's reference.")
    .requiredOption("--release <directory>", "what build made")
    .requiredOption("--image <target>", "such as ghcr.io/team/contrast-node-installer", repository)
    .option("--builder <url>", "the workflow that signs, as this runs in it; without it, nothing is signed")
    .option("--npm-registry <url>", "instead of the public one")
    .action(async ({ builder, ...publication }) => {
      const { publishRelease } = await import("./publish.ts");
      const signing = builder === undefined ? undefined : { builder };
      console.log(await publishRelease({ ...publication, signing }, toStderr));
    });

const root = new Verb("npm run release --")
  .description("What a release consists of, and its publication.")
  .addCommand(payloads())
  .addCommand(build())
  .addCommand(publish());
process.exitCode = await run(root, process.argv.slice(2));
