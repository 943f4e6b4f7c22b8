import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, posix } from "node:path";
import { logPath, stateDirectory } from "../../node-installer/host/files.ts";
import { armedPath } from "../../node-installer/host/guard.ts";
import { journalPath } from "../../node-installer/host/journal.ts";
import type { MemoryHost } from "./memory-host.ts";
import { fakeSystemctl } from "./systemctl.ts";

interface Result {
  /** Files by path, with the time as `NOW`; all that were there and are not any more are gone. */
  files: Record<string, string>;
  log: string;
  restarted: string | undefined;
}

/** What the script makes of the same files is the same: of many trials, most end in few states. */
const results = new Map<string, Result>();
const now = "@NOW@";

/**
 * systemd runs the guard: the script that is on the host, with sh, on a copy of the files that it works with. Returns the
 * unit that it restarted.
 */
export function runGuard(host: MemoryHost): string | undefined {
  const script = host.text(`${stateDirectory}/guard.sh`);
  const order = host.text(armedPath);
  if (script === undefined || order === undefined) return undefined;
  const folders = [stateDirectory, posix.dirname(/^file=(.*)$/m.exec(order)?.[1] ?? "/etc/containerd/config.toml")];
  const files: Record<string, string> = {};
  const directories: string[] = [];
  for (const [path, node] of host.nodes) {
    if (node.kind === "directory" && folders.some((folder) => `${folder}/`.startsWith(`${path}/`)))
      directories.push(path);
    if (node.kind !== "file" || path === journalPath) continue;
    if (folders.some((folder) => path.startsWith(`${folder}/`))) files[path] = node.content.toString("latin1");
  }
  const key = JSON.stringify(files);
  const result = results.get(key) ?? run(script, files, directories, folders);
  results.set(key, result);
  const time = `${host.now().toISOString().slice(0, 19)}Z`;
  for (const path of Object.keys(files)) {
    if (result.files[path] !== undefined) continue;
    host.nodes.delete(path);
    host.onChange(path);
  }
  for (const [path, text] of Object.entries(result.files)) {
    const written = text.replaceAll(now, time);
    if (files[path] === written) continue;
    const { mode, uid, gid } = host.nodes.get(path) ?? { mode: 0o644, uid: 0, gid: 0 };
    host.put(path, Buffer.from(written, "latin1"), { mode, uid, gid });
    host.onChange(path);
  }
  if (result.log !== "") host.put(logPath, `${host.text(logPath) ?? ""}${result.log.replaceAll(now, time)}`);
  return result.restarted;
}

function run(script: string, files: Record<string, string>, directories: string[], folders: string[]): Result {
  const root = mkdtempSync(join(tmpdir(), "guard-"));
  try {
    for (const path of directories) mkdirSync(join(root, path), { recursive: true });
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      const moved = path === armedPath ? text.replaceAll(/^(file|backup)=\//gm, `$1=${root}/`) : text;
      writeFileSync(join(root, path), moved, "latin1");
    }
    const systemctl = fakeSystemctl(join(root, "bin"));
    // The host's clock is not this machine's.
    writeFileSync(join(root, "bin/date"), `#!/bin/sh\ncase $* in *%s*) echo 0 ;; *) echo ${now} ;; esac\n`, {
      mode: 0o755,
    });
    // Its places stand in its first line.
    const moved = script.replace(/^set -- .*$/m, (line) => line.replaceAll(/(?<=[ '])\//g, `${root}/`));
    writeFileSync(join(root, "guard.sh"), moved);
    systemctl.run("sh", [join(root, "guard.sh")]);
    const text = (path: string) => readFileSync(join(root, path), "latin1").replaceAll(root, "");
    const paths = folders.flatMap((folder) => readTree(join(root, folder)).map((name) => `${folder}${name}`));
    const [, restarted] = /restart (\S+)$/m.exec(systemctl.calls().join("\n")) ?? [];
    return {
      files: Object.fromEntries(paths.map((path) => [path, text(path)])),
      log: readTree(join(root, "var/log")).length > 0 ? text(logPath) : "",
      restarted,
    };
  } finally {
    rmSync(root, { recursive: true });
  }
}

function readTree(directory: string, below = ""): string[] {
  let names: string[];
  try {
    names = readdirSync(join(directory, below));
  } catch {
    return [];
  }
  return names.flatMap((name) => {
    const path = `${below}/${name}`;
    return statSync(join(directory, path)).isDirectory() ? readTree(directory, path) : [path];
  });
}
