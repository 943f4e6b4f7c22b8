import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { quote } from "../../runtime/shell.ts";
import { replaceFile } from "../files/replace.ts";

/**
 * Writes `<clone>/.local/bin/contrast-runtime`, which the clone's scripts put first on PATH. The stack's commands call the
 * bin by name: where the components are used as a library, they find it in node_modules/.bin; in the clone, this file
 * runs the sources with the Node that runs this: the pinned one where there is one.
 */
export async function installLauncher(clone: string): Promise<string> {
  const bin = join(clone, "tools", "cli", "bin.mjs");
  const onWindows = process.platform === "win32";
  const file = join(clone, ".local", "bin", onWindows ? "contrast-runtime.cmd" : "contrast-runtime");
  const content = onWindows
    ? `@"${process.execPath}" "${bin}" %*\r\n`
    : `#!/bin/sh\nexec ${quote(process.execPath)} ${quote(bin)} "$@"\n`;
  if ((await readFile(file, "utf8").catch(() => "")) === content) return file;
  // In one step, because another command may be calling it at this moment.
  await replaceFile(file, content, { mode: 0o755 });
  return file;
}
