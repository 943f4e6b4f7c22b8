import { InvalidArgumentError, Option } from "@commander-js/extra-typings";
import { distributionNames, platformNames } from "../../../runtime/spec.ts";
import type { PolicyOptIns } from "../../../workload/policy/pod-policy.ts";
import { acknowledgeable } from "../../../workload/traps.ts";
import { Verb } from "../command.ts";
import { exitCodeHelp } from "../help.ts";
import { each } from "../values.ts";

export const verb = () =>
  new Verb("workload")
    .description(
      `Reads Kubernetes manifests and prints them with their pods ready for a runtime: class, requests equal to limits, images by
digest, initdata with the pod's policy. Everything else stays as it is. Its output may be given again.`,
    )
    .argument("<files...>", "the manifests; - is standard input")
    .option("--stack <file>", "the stack's file, which says the runtimes and their settings, such as Pulumi.prod.yaml")
    .option("--handler <name>", "with --stack: which of its runtimes")
    .addOption(new Option("--platform <name>", "of the runtime").choices(platformNames))
    .option("--payload <file>", "without --stack: the payload's manifest; with --platform")
    .addOption(
      new Option("--distribution <name>", "without --stack: of the nodes, if it is k0s or microk8s").choices(
        distributionNames,
      ),
    )
    .option("--namespace <name>", "of objects that name none", "default")
    .option(
      "--initdata <file>",
      `what guests are given besides, such as aa.toml and cdh.toml (an initdata document); a policy.rego in it takes the place of
the one that is made`,
    )
    .option(
      "--allow <what>",
      `what policies allow besides: logs, env=NAME (any value), exec=COMMAND (words, or a JSON list of them)`,
      allowed,
      [],
    )
    .addOption(acknowledge())
    .option("--json", "print a row for each workload instead: what verifiers see of its pods")
    .option("--ca <file>", "certificate of the registry's authority (PEM)")
    .option("--plain-http <host>", "a registry that is spoken to without TLS, such as 10.0.0.1:5000", each, [])
    .addHelpText(
      "after",
      `
Images are looked up in their registries, with the logins of docker login; what is known by digest is kept.
${exitCodeHelp({ done: "done", failed: "refused or failed, as the message says", usage: "wrong usage" })}`,
    )
    .action(async (files, { allow, ...options }) => {
      const { workload } = await import("../../workload/workload.ts");
      const { toStderr } = await import("../../process/progress.ts");
      const { text } = await import("node:stream/consumers");
      const command = { ...options, files, allow: together(allow) };
      const { output, notes } = await workload(command, { stdin: () => text(process.stdin), progress: toStderr });
      for (const note of notes) console.error(note);
      process.stdout.write(output);
    });

const acknowledge = () =>
  new Option(
    "--acknowledge <trap>",
    `a trap that is known and wanted: ${acknowledgeable.map((name) => `"${name}"`).join(", ")}`,
  )
    // For completion; a parser of its own, because it may be repeated.
    .choices(acknowledgeable)
    .argParser(known)
    .default([] as string[]);

function known(text: string, before: string[]): string[] {
  if (acknowledgeable.some((name) => name === text)) return [...before, text];
  throw new InvalidArgumentError(`Allowed choices are ${acknowledgeable.join(", ")}.`);
}

function allowed(text: string, before: PolicyOptIns[]): PolicyOptIns[] {
  const [, name, value = ""] = /^(logs|env|exec)(?:=(.+))?$/s.exec(text) ?? [];
  if (name === "logs" && value === "") return [...before, { logs: true }];
  if (name === "env" && value !== "") return [...before, { env: [value] }];
  if (name === "exec" && value !== "") return [...before, { exec: [wordsOf(value)] }];
  throw new InvalidArgumentError("It must be logs, env=NAME or exec=COMMAND.");
}

function wordsOf(text: string): string[] {
  if (!text.startsWith("[")) return text.split(/\s+/).filter(Boolean);
  try {
    const words: unknown = JSON.parse(text);
    if (Array.isArray(words) && words.length > 0 && words.every((word) => typeof word === "string")) return words;
  } catch {
    // said below
  }
  throw new InvalidArgumentError(`exec=${text} is no JSON list of words.`);
}

const together = (all: readonly PolicyOptIns[]): PolicyOptIns => ({
  logs: all.some(({ logs }) => logs === true),
  env: all.flatMap(({ env = [] }) => env),
  exec: all.flatMap(({ exec = [] }) => exec),
});
