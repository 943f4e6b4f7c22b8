import { posix } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import type { Host } from "../host/host.ts";

/**
 * Refuses a file over which nothing can be renamed, before anything depends on it. What cannot be asked on this host is
 * not known, and shows at the rename.
 */
export async function requireReplaceable(host: Host, file: string): Promise<void> {
  if (await isMountPoint(host, file)) {
    throw new Refusal(
      "configuration-mounted",
      `${file} is a mount point of its own (findmnt ${file}), so it cannot be replaced in one step. Mount its directory instead of the file, or unmount it and put the file there.`,
    );
  }
  // What must not change is the file, or else the entries of its directory.
  for (const path of [file, posix.dirname(file)]) {
    const flag = await immutableFlag(host, path);
    if (flag === undefined) continue;
    throw new Refusal(
      "configuration-immutable",
      `${path} has the attribute ${flag} (lsattr -d ${path}), so not even root can replace ${file}. Somebody set it against programs that rewrite the file: if an installer may, run: chattr -${flag[0]} ${path}.`,
    );
  }
}

async function isMountPoint(host: Host, file: string): Promise<boolean> {
  // In a pod, only a program that runs in the host's root sees the host's paths in it.
  const { code, stdout } = await host.run("cat", ["/proc/self/mountinfo"], { timeoutMs: 10_000 });
  if (code !== 0) return false;
  const escaped = file.replaceAll(/[ \t\n\\]/g, (char) => `\\${char.charCodeAt(0).toString(8).padStart(3, "0")}`);
  return stdout.split("\n").some((line) => line.split(" ")[4] === escaped);
}

async function immutableFlag(host: Host, path: string): Promise<string | undefined> {
  const { code, stdout } = await host.run("lsattr", ["-d", path], { timeoutMs: 10_000 });
  const [, flags = ""] = (code === 0 ? /^([-A-Za-z]+)\s/.exec(stdout) : null) ?? [];
  return flags.includes("i") ? "i (immutable)" : flags.includes("a") ? "a (append only)" : undefined;
}
