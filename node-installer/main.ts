import { parseArgs } from "node:util";
import about from "../package.json" with { type: "json" };
import { didYouMean } from "../runtime/nearest.ts";
import { Refusal } from "../runtime/refusal.ts";
import type { Options } from "./commands/context.ts";
import { exitCodeMeanings, exitCodeOf, exitCodes } from "./commands/exit-codes.ts";
import { TooSlow } from "./host/host.ts";
import { sentence } from "./install/log.ts";

interface Command {
  does: string;
  /** Its own options; all others would ignore them and do something else than what was meant. */
  takes?: readonly OwnOption[];
  run: (options: Options) => Promise<number>;
}

/** Each command's module is loaded on demand: a plan on a file tree needs no client of the API server and no metrics. */
const commands: Record<string, Command> = {
  "check-host": {
    does: "report what the host lacks for the runtimes in the spec",
    takes: ["json"],
    run: async (options) => (await import("./commands/check-host.ts")).checkHostCommand(options),
  },
  plan: {
    does: "show what an installation would change, and change nothing",
    takes: ["json", "bundle"],
    run: async (options) => (await import("./commands/plan.ts")).plan(options),
  },
  install: {
    does: "bring the node in line with the spec",
    takes: ["retry"],
    run: async (options) => (await import("./commands/install.ts")).install(options),
  },
  verify: {
    does: "prove that the node matches the spec and starts sandboxes",
    takes: ["json", "deep"],
    run: async (options) => (await import("./commands/verify.ts")).verify(options),
  },
  uninstall: {
    does: "remove everything that was installed, unless a pod uses it",
    takes: ["retry"],
    run: async (options) => (await import("./commands/install.ts")).uninstall(options),
  },
  snapshot: {
    does: "export what a plan needs from this node, without secrets",
    takes: ["output"],
    run: async (options) => (await import("./commands/snapshot.ts")).snapshot(options),
  },
  watch: {
    does: "install, then follow the spec and repair drift: what the DaemonSet runs",
    takes: ["no-kubernetes"],
    run: async (options) => (await import("./commands/watch.ts")).watch(options),
  },
};

const file = { type: "string", value: " FILE" } as const;
const directory = { type: "string", value: " DIR" } as const;
const flag = { type: "boolean", value: "" } as const;
const commonOptions = {
  spec: { ...file, does: "the install spec that the Pulumi program rendered" },
  "host-root": { ...directory, default: "/", does: "the node's root directory (default /)" },
  payloads: {
    ...directory,
    default: "/payloads",
    does: "the directory that holds a folder for each payload (default /payloads)",
  },
  "guest-registry": { ...file, does: "what Contrast's guests are told about registries" },
  help: { ...flag, short: "h", does: "show this" },
  version: { ...flag, does: "show the version" },
} as const;
const ownOptions = {
  json: { ...flag, does: "print JSON" },
  bundle: { ...file, does: "plan for the node that this was exported from" },
  retry: { ...flag, does: "also if the same change failed before" },
  deep: { ...flag, does: "read every payload byte" },
  output: { ...file, does: "write there instead of standard output" },
  "no-kubernetes": { ...flag, does: "without an API server" },
} as const;
type OwnOption = keyof typeof ownOptions;
const options = { ...commonOptions, ...ownOptions };

const describeOptions = (some: readonly (keyof typeof options)[]): string =>
  some.map((name) => `  ${`--${name}${options[name].value}`.padEnd(17)}  ${options[name].does}\n`).join("");

const usage = () => `Usage: node-installer COMMAND --spec FILE [--host-root DIR] [--payloads DIR]

Commands:
${Object.entries(commands)
  .map(
    ([name, { does, takes = [] }]) =>
      `  ${name.padEnd(11)} ${does}\n${describeOptions(takes).replace(/^/gm, "    ").trimEnd()}`,
  )
  .join("\n")}

Options:
${describeOptions(["spec", "host-root", "payloads", "guest-registry", "help", "version"])}
Exit codes:
${Object.entries(exitCodes)
  .map(([name, code]) => `  ${code}  ${exitCodeMeanings[name as keyof typeof exitCodes]}`)
  .join("\n")}
`;

const badArguments = (message: string) => new Refusal("bad-arguments", `${message} See --help.`);

/** What to run, or what to print instead. */
function parse(args: string[], print: Options["print"], printError: Options["printError"]) {
  const { values, positionals } = readWords(args);
  const helps = positionals[0] === "help";
  const [name, ...rest] = helps ? positionals.slice(1) : positionals;
  if (values.version) return `${about.version}\n`;
  if (values.help || (helps && name === undefined)) return usage();
  if (name === undefined) throw badArguments("No command was given.");
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) {
    const all = Object.keys(commands);
    throw badArguments(`There is no command "${name}"${didYouMean(name, all)} It is one of ${all.join(", ")}.`);
  }
  if (rest.length > 0) throw badArguments(`"${rest.join(" ")}" is not expected on the command line.`);
  if (helps) return usage();
  for (const option of Object.keys(ownOptions) as OwnOption[]) {
    if (values[option] === undefined || command.takes?.includes(option)) continue;
    const owners = Object.keys(commands).filter((owner) => commands[owner]?.takes?.includes(option));
    throw badArguments(`--${option} is an option of ${owners.join(", ")} only.`);
  }
  if (!values.spec) throw badArguments("--spec is missing: give the install spec's file.");
  const { spec, "host-root": hostRoot, payloads, json = false, retry = false, deep = false, bundle, output } = values;
  const guestRegistry = values["guest-registry"];
  const kubernetes = !values["no-kubernetes"];
  return {
    run: command.run,
    options: {
      ...{ spec, hostRoot, payloads, guestRegistry, json, retry, deep, kubernetes, bundle, output },
      ...{ print, printError },
    },
  };
}

function readWords(args: string[]) {
  const words = knownWords(args);
  const names = words.tokens.flatMap((token) => (token.kind === "option" ? [token.name] : []));
  const twice = names.find((name, index) => names.indexOf(name) < index);
  if (twice !== undefined) throw badArguments(`--${twice} is given twice.`);
  return words;
}

function knownWords(args: string[]) {
  try {
    return parseArgs({ args, allowPositionals: true, options, tokens: true });
  } catch (error) {
    const [sentence = ""] = (error as Error).message.split(/\.\s/);
    const [, unknown] = /^Unknown option '([^']*)'$/.exec(sentence) ?? [];
    const known = Object.keys(options).map((name) => `--${name}`);
    throw badArguments(unknown === undefined ? `${sentence}.` : `${sentence}${didYouMean(unknown, known)}`);
  }
}

/** Runs one command and returns its exit code. A user's mistake is reported in one sentence, without a stack. */
export async function main(
  args: string[],
  print: Options["print"] = (text) => void process.stdout.write(text),
  printError: Options["printError"] = (text) => void process.stderr.write(text),
): Promise<number> {
  try {
    const parsed = parse(args, print, printError);
    if (typeof parsed === "string") {
      print(parsed);
      return exitCodes.done;
    }
    return await parsed.run(parsed.options);
  } catch (error) {
    const code = exitCodeOf(error);
    // Errors of the operating system are printed in its words, and a busy node is none of ours; a stack is only for bugs.
    const isOurs = error instanceof Error && !("errno" in error || error instanceof TooSlow);
    const isBug = isOurs && code === exitCodes.unexpected;
    const text = isBug ? (error.stack ?? error.message) : sentence(error);
    printError(`node-installer: ${text}\n`);
    return code;
  }
}

if (import.meta.main) {
  // The reader may go away (`| head`, a lost connection), but a change that has begun must be completed.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
  process.exitCode = await main(process.argv.slice(2));
}
