/**
 * `command:local:Command`, `command:remote:Command` and `command:local:run`, without assets and archives. Read returns the
 * recorded state: what a command did is never looked at again.
 */
import { randomBytes } from "node:crypto";
import * as z from "zod";
import { inputChanges } from "../changes.ts";
import type { Checked, Failure, Log, Provider } from "../plugin.ts";
import { containsUnknown, type Properties, revealed, secret, unknown, type Value } from "../values.ts";
import { killAll, type Outputs, runProcess } from "./process.ts";
import { connection, sshCommand } from "./ssh.ts";

const shared = {
  create: z.string().optional(),
  update: z.string().optional(),
  delete: z.string().optional(),
  stdin: z.string().optional(),
  environment: z.record(z.string(), z.string()).optional(),
  triggers: z.array(z.unknown()).optional(),
  logging: z.enum(["stdout", "stderr", "stdoutAndStderr", "none"]).optional(),
  addPreviousOutputInEnv: z.boolean().optional(),
};
const localCommand = z.strictObject({
  ...shared,
  interpreter: z.array(z.string()).optional(),
  dir: z.string().optional(),
});
const remoteCommand = z.strictObject({ ...shared, connection });
const localRun = localCommand
  .omit({ create: true, update: true, delete: true, triggers: true })
  .extend({ command: z.string() });

const schemas: Record<string, z.ZodType> = {
  "command:local:Command": localCommand,
  "command:remote:Command": remoteCommand,
};

type Inputs = z.infer<typeof localCommand> & Partial<Pick<z.infer<typeof remoteCommand>, "connection">>;

export const commandProvider: Provider = {
  cancel: killAll,

  async check({ type, news }): Promise<Checked> {
    const schema = schemas[type];
    if (!schema) throw new Error(`${type} is not a resource of this stand-in`);
    const inputs = type === "command:remote:Command" ? withSecretConnection(news) : news;
    return containsUnknown(news) ? { inputs } : { inputs, failures: failures(schema, news) };
  },

  async diff({ inputs, oldInputs }) {
    return { changes: inputChanges(oldInputs, inputs, ["triggers"]) };
  },

  async create({ type, name, inputs, preview, log }) {
    const id = `${name}${randomBytes(4).toString("hex")}`;
    if (preview) return { id: "", state: outputsOf(inputs, { stdout: unknown, stderr: unknown }) };
    const parsed = parse(type, inputs);
    const outputs = await run(type, parsed, parsed.create, { stdout: "", stderr: "" }, log);
    return { id, state: outputsOf(inputs, outputs) };
  },

  async read({ id, state, inputs }) {
    return { id, state, inputs };
  },

  async update({ type, state, inputs, preview, log }) {
    if (preview) return outputsOf(inputs, { stdout: unknown, stderr: unknown });
    const parsed = parse(type, inputs);
    const outputs = await run(type, parsed, parsed.update ?? parsed.create, previous(state), log);
    return outputsOf(inputs, outputs);
  },

  async delete({ type, state, log }) {
    const { stdout: _out, stderr: _err, ...inputs } = state;
    const parsed = parse(type, inputs);
    await run(type, parsed, parsed.delete, previous(state), log);
  },

  /** Runs in previews too. */
  async invoke(token, args) {
    if (token !== "command:local:run") throw new Error(`${token} is not a function of this stand-in`);
    const parsed = localRun.parse(revealed(args));
    const nobody: Log = { info() {}, warn() {}, error() {}, status() {} };
    const outputs = await run("command:local:Command", parsed, parsed.command, { stdout: "", stderr: "" }, nobody);
    return outputsOf(args, outputs);
  },
};

const parse = (type: string, inputs: Properties): Inputs => schemas[type]?.parse(revealed(inputs)) as Inputs;

function failures(schema: z.ZodType, news: Properties): Failure[] {
  const issues = schema.safeParse(revealed(news)).error?.issues ?? [];
  return issues.map(({ path, message, ...issue }) => ({
    property: path.join("."),
    reason: issue.code === "invalid_type" ? `must be a '${issue.expected}'; got '${goType(news, path)}'` : message,
  }));
}

function goType(news: Properties, path: PropertyKey[]): string {
  const value = path.reduce<unknown>((part, key) => Object(part)[key], revealed(news));
  return typeof value === "number" ? "float64" : value === undefined ? "nil" : typeof value;
}

const withSecretConnection = (inputs: Properties): Properties => ({
  ...inputs,
  connection: secret(inputs.connection ?? null),
});

const previous = (state: Properties): Outputs => {
  const { stdout = "", stderr = "" } = revealed(state) as Partial<Outputs>;
  return { stdout, stderr };
};

/** The inputs and the command's output; no input that is a secret makes the output one, as in the official plugin. */
const outputsOf = (inputs: Properties, { stdout, stderr }: { stdout: Value; stderr: Value }): Properties => ({
  ...inputs,
  stdout,
  stderr,
});

async function run(
  type: string,
  inputs: Inputs,
  command: string | undefined,
  outputs: Outputs,
  log: Log,
): Promise<Outputs> {
  if (command === undefined) return outputs;
  const environment: Record<string, string> = { ...inputs.environment };
  if (inputs.addPreviousOutputInEnv ?? true) {
    if (outputs.stdout) environment.PULUMI_COMMAND_STDOUT = outputs.stdout;
    if (outputs.stderr) environment.PULUMI_COMMAND_STDERR = outputs.stderr;
  }
  const { stdin, logging = "stdoutAndStderr" } = inputs;
  const options = { command, stdin, onLine: log.status, logging };
  if (type === "command:local:Command") {
    const words = inputs.interpreter?.length ? inputs.interpreter : ["/bin/sh", "-c"];
    return await runProcess([...words, command], { ...options, dir: inputs.dir, environment });
  }
  if (!inputs.connection) throw new Error("connection: a remote command needs one");
  const ssh = await sshCommand(inputs.connection, environment);
  try {
    return await runProcess([...ssh.words, command], { ...options, environment: ssh.environment });
  } catch (error) {
    const objection = await ssh.objection();
    throw objection === undefined ? error : new Error(objection);
  } finally {
    await ssh.cleanUp();
  }
}
