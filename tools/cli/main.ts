/** The package's bin, `contrast-runtime`: the verbs of the product, each defined in a file of verbs/. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { binWords } from "../../runtime/stack-commands.ts";
import { packageRoot } from "../files/project.ts";
import { callIt, run, Verb } from "./command.ts";
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
  "await-host": {
    summary: "wait until a host's SSH server answers",
    load: () => import("./verbs/await-host.ts"),
  },
  status: {
    summary: "show each node's state, handlers and reason",
    load: () => import("./verbs/status.ts"),
  },
  verify: {
    summary: "compare what each node serves with its group's spec; write a report",
    load: () => import("./verbs/verify.ts"),
  },
  support: {
    summary: "write one archive for a bug report",
    load: () => import("./verbs/support.ts"),
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
  workload: {
    summary: "make the pods of Kubernetes manifests ready for a runtime: class, limits, digests, policy",
    load: () => import("./verbs/workload.ts"),
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

/**
 * Returns the exit code.
 *
 * @param calledAs what Node says in place of its program's file: a stack's commands are told by it
 * @param script the npm script that was run, if one was: where it stands for the verb, help and mistakes name it
 */
export async function main(
  given: readonly string[],
  { calledAs = "", script }: { calledAs?: string | undefined; script?: string | undefined } = {},
): Promise<number> {
  const words = binWords(calledAs, given);
  const root = await program(words);
  const verb = root.commands.find((command) => command.name() === words[0] && words[0] === script);
  if (verb !== undefined) callIt(verb, `npm run ${script} --`);
  return await run(root, words);
}

const version = (): string => JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")).version;

// Only the clone's own scripts run this file: those that use the package run its bin, by whatever script of theirs.
if (import.meta.main) process.exitCode = await main(process.argv.slice(2), { script: process.env.npm_lifecycle_event });
