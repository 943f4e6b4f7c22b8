/** The package's bin, `contrast-runtime`: one verb per tool; a tool is loaded only when its verb is called. */
import { exitCodes } from "../fleet/follow.ts";

interface Verb {
  summary: string;
  load: () => Promise<{ main(args: string[]): number | Promise<number> }>;
}

const verbs: Record<string, Verb> = {
  rollout: {
    summary: "wait until every node of a group serves the group's runtimes",
    load: () => import("../fleet/rollout.ts"),
  },
  uninstall: {
    summary: "uninstall the runtimes from every node of a group, unless pods use them",
    load: () => import("../fleet/uninstall.ts"),
  },
  "local-cluster": {
    summary: "make, repair, show or remove a Kubernetes cluster on this machine",
    load: () => import("../local-cluster/command.ts"),
  },
  status: {
    summary: "show each node's state, handlers and reason",
    load: () => import("../fleet/status.ts"),
  },
  lock: {
    summary: "fetch a payload's files, check them and write its manifest",
    load: () => import("../lock/main.ts"),
  },
  image: {
    summary: "build the installer's image, with payloads",
    load: () => import("../image/main.ts"),
  },
  "image push": {
    summary: "push the installer's image to a registry",
    load: () => import("../image/push.ts"),
  },
  review: {
    summary: "say what a preview does, check it against the approved one, plan a whole fleet",
    load: () => import("../review/main.ts"),
  },
  measure: {
    summary: "compute launch digests, dm-verity root hashes and initdata digests",
    load: () => import("../measure/main.ts"),
  },
};

const usage = `Usage: contrast-runtime VERB [options]

${Object.entries(verbs)
  .map(([name, { summary }]) => `  ${name.padEnd(14)} ${summary}`)
  .join("\n")}

contrast-runtime VERB --help shows a verb's options.`;

/** Returns the verb's exit code, or 2 if there is no such verb. */
export async function main(args: string[]): Promise<number> {
  const [first, second] = args;
  if (first === undefined || ["help", "--help", "-h"].includes(first)) {
    (first === undefined ? console.error : console.log)(usage);
    return first === undefined ? exitCodes.usage : exitCodes.done;
  }
  for (const [words, name] of [
    [2, `${first} ${second}`],
    [1, first],
  ] as const) {
    const verb = Object.hasOwn(verbs, name) ? verbs[name] : undefined;
    if (verb !== undefined) return (await verb.load()).main(args.slice(words));
  }
  const { nearest } = await import("../../runtime/nearest.ts");
  const guess = nearest(first, Object.keys(verbs));
  console.error(`There is no verb "${first}"${guess === undefined ? "." : `; did you mean "${guess}"?`}\n\n${usage}`);
  return exitCodes.usage;
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
