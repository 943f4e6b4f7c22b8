import { Refusal } from "../../runtime/refusal.ts";
import type { FileAttributes, Host } from "./host.ts";

/**
 * Creates a file that is placed beside `model` or replaces it, and that the same programs may read. Mode and owner are not
 * enough for that: SELinux labels files (a new file gets its directory's label), and access control lists name further
 * users. Node supports neither, but the host's own programs do. Refuses if one of them cannot be kept.
 */
export async function createLike(
  host: Host,
  model: string,
  path: string,
  content: Buffer | string,
  attributes: FileAttributes,
): Promise<void> {
  const [hasLabel, hasList] = [await isLabelled(host, model), await hasAccessList(host, model)];
  if (!hasLabel && !hasList) return await host.createFile(path, content, attributes);
  const { mode, uid, gid } = attributes;
  // Only the owner may set label and list, so they are set before the file is given to somebody else.
  await host.createFile(path, content, { mode, uid: 0, gid: 0 });
  const keep = async (what: string, command: string, ...args: string[]) => {
    const { code, stderr } = await host.run(command, [...args, path]).catch(async (error) => {
      await host.remove(path);
      throw error;
    });
    if (code === 0) return;
    await host.remove(path);
    throw new Refusal(
      "access-not-kept",
      `The ${what} of ${model} could not be given to ${path} (${command}: ${stderr.trim()}), so ${model} stays as it is. ` +
        `Install ${command} (GNU coreutils) on the node, and allow the installer's pod to set it.`,
    );
  };
  if (hasLabel) await keep("SELinux label", "chcon", `--reference=${model}`);
  if (hasList) await keep("access control list", "cp", "--attributes-only", "--preserve=mode", model);
  if (uid !== 0 || gid !== 0) await keep("owner", "chown", `${uid}:${gid}`);
}

/** Refuses, before anything depends on it, if a copy beside the file could not get its label or list: tries it. */
export async function requireKeepable(
  host: Host,
  file: string,
  trial: string,
  attributes: FileAttributes,
): Promise<void> {
  if (!(await isLabelled(host, file)) && !(await hasAccessList(host, file))) return;
  await host.remove(trial);
  await createLike(host, file, trial, "", attributes);
  await host.remove(trial);
}

async function isLabelled(host: Host, path: string): Promise<boolean> {
  return (await host.stat("/sys/fs/selinux/enforce")) !== undefined && (await host.stat(path)) !== undefined;
}

/** GNU ls marks such a file with a plus sign: `-rw-r-----+`. */
async function hasAccessList(host: Host, path: string): Promise<boolean> {
  const { stdout } = await host.run("ls", ["-ld", path]);
  return /^\S{10}\+/.test(stdout);
}
