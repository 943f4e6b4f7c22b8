/** The package's bin, `contrast-runtime`: the verbs of the product, each defined in a file of verbs/. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { packageRoot } from "../files/project.ts";
import { run, Verb } from "./command.ts";
import { exitCodeHelp } from "./help.ts";

/** A definition is loaded only for the verb that is asked for, and what it runs only when it runs. */
const verbs: Record<string, { summary: string; load: () => Promise<{ verb: () => CommandUnknownOpts }> }> = {
  rollout: {
    summary: "wait until every node of a group serves the group's runtimes",
    load: () => import("./verbs/rollout.ts"),
  },
  uninstall: {
    summary: "uninstall the runtimes from every node of a group, unless pods use them",
    load: () => import("./verbs/uninstall.ts"),
  },
  status: {
    summary: "show each node's state, handlers and reason",
    load: () => import("./verbs/status.ts"),
  },
  lock: {
    summary: "fetch a payload's files, check them and write its manifest",
    load: () => import("./verbs/lock.ts"),
  },
  image: {
    summary: "build the installer's image, with payloads; push it",
    load: () => import("./verbs/image.ts"),
  },
  review: {
    summary: "say what a preview does, check it against the approved one, plan a whole fleet",
    load: () => import("./verbs/review.ts"),
  },
  render: {
    summary: "write a stack's Kubernetes manifests, for kubectl, Argo CD or Flux",
    load: () => import("./verbs/render.ts"),
  },
  measure: {
    summary: "compute launch digests, dm-verity root hashes and initdata digests",
    load: () => import("./verbs/measure.ts"),
  },
  "local-cluster": {
    summary: "make, repair, show or remove a Kubernetes cluster on this machine",
    load: () => import("./verbs/local-cluster.ts"),
  },
  completion: {
    summary: "print what makes a shell complete this command's words",
    load: () => import("./verbs/completion.ts"),
  },
};

/** The program, with the definitions of the verbs that are among the words; by default of all. */
export async function program(words: readonly string[] = Object.keys(verbs)): Promise<Verb> {
  const root = new Verb("contrast-runtime");
  root
    .description("Confidential containers on Kubernetes nodes. A verb's --help shows its options.")
    .version(version(), "-V, --version", "show the version")
    .addHelpText("after", `\n${exitCodeHelp()}`);
  for (const [name, { summary, load }] of Object.entries(verbs)) {
    const command = words.includes(name) ? (await load()).verb() : new Verb(name);
    root.addCommand(command.summary(summary));
  }
  if (words[0] === "complete")
    root.addCommand((await import("./verbs/completion.ts")).complete(program), { hidden: true });
  return root;
}

/** Returns the exit code. */
export async function main(words: readonly string[]): Promise<number> {
  return await run(await program(words), words);
}

const version = (): string => JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")).version;

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
