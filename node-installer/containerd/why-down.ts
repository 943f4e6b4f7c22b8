import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { Host } from "../host/host.ts";
import { type Located, readConfiguration } from "./locate.ts";
import { readOnDisk } from "./pending.ts";
import { unitState } from "./restart.ts";
import { validateImports } from "./validate.ts";

/**
 * Why a CRI does not answer: what containerd's files are wrong in, else what the unit said about it in the journal since it
 * was started. Without a full stop; undefined: nothing was found.
 */
export async function whyDown(host: Host, located: Located): Promise<string | undefined> {
  return (
    (await wrongFiles(host, located).catch(() => undefined)) ??
    (await saidInJournal(host, located).catch(() => undefined))
  );
}

async function wrongFiles(host: Host, located: Located): Promise<string | undefined> {
  const { configuration } = await readConfiguration(host, located);
  try {
    await validateImports(host, located, configuration, [], []);
  } catch (error) {
    if (error instanceof Refusal) return error.message.replace(/\.$/, "");
    throw error;
  }
  return (await readOnDisk(host, located, configuration)).error;
}

/** One line of a journal may be anything. */
const longest = 500;

async function saidInJournal(host: Host, { unit }: Located): Promise<string | undefined> {
  const { invocation } = await unitState(host, unit);
  const { code, stdout } = await host.run("journalctl", [
    `_SYSTEMD_INVOCATION_ID=${invocation}`,
    "--output=cat",
    "--no-pager",
    "--lines=300",
  ]);
  if (code !== 0) return undefined;
  const lines = stdout.split("\n").filter((line) => /level="?(warning|error|fatal)|^containerd: /.test(line));
  const line = lines.findLast((one) => /io\.containerd\.(grpc\.v1\.cri|cri\.v1)/.test(one)) ?? lines.at(-1);
  return line === undefined ? undefined : `${unit}'s journal says ${printable(reasonIn(line), longest)}`;
}

/** Of containerd's `key="value"` lines, the error and what it is about. */
function reasonIn(line: string): string {
  const value = (key: string) =>
    new RegExp(`\\b${key}="((?:[^"\\\\]|\\\\.)*)"`).exec(line)?.[1]?.replaceAll('\\"', '"');
  const said = [value("msg"), value("error")].filter((part) => part !== undefined);
  return said.length === 0 ? line : said.join(": ");
}
