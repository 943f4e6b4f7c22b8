import { parseArgs } from "node:util";
import { Refusal } from "../runtime/refusal.ts";
import type { Options } from "./commands/context.ts";
import { exitCodeMeanings, exitCodeOf, exitCodes } from "./commands/exit-codes.ts";
import { sentence } from "./install/log.ts";

/** Each command's module is loaded on demand: a plan on a file tree needs neither gRPC nor metrics. */
const commands: Record<string, { does: string; run: (options: Options) => Promise<number> }> = {
  "check-host": {
    does: "report what the host lacks for the runtimes in the spec",
    run: async (options) => (await import("./commands/check-host.ts")).checkHostCommand(options),
  },
  plan: {
    does: "show what an installation would change, and change nothing (--json, --bundle FILE)",
    run: async (options) => (await import("./commands/plan.ts")).plan(options),
  },
  install: {
    does: "bring the node in line with the spec (--retry: also if the same change failed before)",
    run: async (options) => (await import("./commands/install.ts")).install(options),
  },
  verify: {
    does: "prove that the node matches the spec and starts sandboxes (--deep: read every payload byte)",
    run: async (options) => (await import("./commands/verify.ts")).verify(options),
  },
  uninstall: {
    does: "remove everything that was installed, unless a pod uses it (--retry: as with install)",
    run: async (options) => (await import("./commands/install.ts")).uninstall(options),
  },
  snapshot: {
    does: "export what a plan needs from this node, without secrets (--output FILE)",
    run: async (options) => (await import("./commands/snapshot.ts")).snapshot(options),
  },
  watch: {
    does: "install, then follow the spec and repair drift: what the DaemonSet runs (--no-kubernetes)",
    run: async (options) => (await import("./commands/watch.ts")).watch(options),
  },
};

const usage = () => `Usage: node-installer COMMAND --spec FILE [--host-root DIR] [--payloads DIR]

Commands:
${Object.entries(commands)
  .map(([name, { does }]) => `  ${name.padEnd(11)} ${does}`)
  .join("\n")}

  --spec FILE        the install spec that the Pulumi program rendered
  --host-root DIR    the node's root directory (default /)
  --payloads DIR     the directory that holds a folder for each payload (default /payloads)

Exit codes:
${Object.entries(exitCodes)
  .map(([name, code]) => `  ${code}  ${exitCodeMeanings[name as keyof typeof exitCodes]}`)
  .join("\n")}
`;

const badArguments = (message: string) => new Refusal("bad-arguments", `${message} See --help.`);

function parse(args: string[], print: Options["print"], printError: Options["printError"]) {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        spec: { type: "string" },
        "host-root": { type: "string", default: "/" },
        payloads: { type: "string", default: "/payloads" },
        json: { type: "boolean", default: false },
        retry: { type: "boolean", default: false },
        deep: { type: "boolean", default: false },
        "no-kubernetes": { type: "boolean", default: false },
        bundle: { type: "string" },
        output: { type: "string" },
        help: { type: "boolean", short: "h", default: false },
      },
    });
    const [command, ...rest] = positionals;
    if (values.help) return undefined;
    if (command === undefined) throw badArguments("No command was given.");
    if (!Object.hasOwn(commands, command)) {
      throw badArguments(`There is no command "${command}": it is one of ${Object.keys(commands).join(", ")}.`);
    }
    if (rest.length > 0) throw badArguments(`"${rest.join(" ")}" is not expected on the command line.`);
    // Any other command would ignore the bundle and look at this machine.
    if (values.bundle !== undefined && command !== "plan") throw badArguments("--bundle is an option of plan only.");
    if (values.spec === undefined) throw badArguments("--spec is missing: give the install spec's file.");
    const options: Options = {
      spec: values.spec,
      hostRoot: values["host-root"],
      payloads: values.payloads,
      json: values.json,
      retry: values.retry,
      deep: values.deep,
      kubernetes: !values["no-kubernetes"],
      bundle: values.bundle,
      output: values.output,
      print,
      printError,
    };
    return { command, options };
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw badArguments(`${(error as Error).message.split(". ")[0]}.`);
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
    if (parsed === undefined) {
      print(usage());
      return exitCodes.done;
    }
    return (await commands[parsed.command]?.run(parsed.options)) ?? exitCodes.unexpected;
  } catch (error) {
    const code = exitCodeOf(error);
    // Errors of the operating system are printed in its words; a stack is only for bugs.
    const isBug = error instanceof Error && code === exitCodes.unexpected && !("errno" in error);
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
