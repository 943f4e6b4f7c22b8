import { parse } from "yaml";

/** The commands in an example's head that give it its secrets, with the path that each sets below the project's keys. */
export const secretCommands = (example: string): { command: string; path: string }[] =>
  [...example.matchAll(/^# +(pulumi config set --secret --path (\S+) .*)$/gm)].map(([, command = "", path = ""]) => ({
    command,
    path,
  }));

type Table = Record<string, unknown>;

/** What the example's file has after those commands, with a value for the last word of each path. */
export function withSecrets(example: string, value: (name: string) => unknown): { config: Table } {
  const file = parse(example) as { config: Table };
  for (const { path } of secretCommands(example)) {
    const words = `contrast-runtime:${path}`.split(".");
    const name = words.pop() ?? "";
    words.reduce(child, file.config)[name] = value(name);
  }
  return file;
}

/** The table of that name in another one; made if it is not there. */
function child(table: Table, name: string): Table {
  table[name] ??= {};
  return table[name] as Table;
}
