import { Refusal } from "../runtime/refusal.ts";
import type { FileAttributes, Host } from "./host.ts";

/**
 * Creates a file beside one, or to take its place, that the same programs may read: mode and owner are not all that says
 * so. SELinux gives a file a label (a new file has its directory's), and an access control list names further users.
 * Node knows neither, the host's own programs do. Refuses where one of them cannot be kept.
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
  // Label and list are the owner's to give: ours, before the file becomes somebody else's.
  await host.createFile(path, content, { mode, uid: 0, gid: 0 });
  const keep = async (what: string, command: string, ...args: string[]) => {
    const { code, stderr } = await host.run(command, [...args, path]);
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

async function isLabelled(host: Host, path: string): Promise<boolean> {
  return (await host.stat("/sys/fs/selinux/enforce")) !== undefined && (await host.stat(path)) !== undefined;
}

/** GNU's ls marks the mode of such a file: `-rw-r-----+`. */
async function hasAccessList(host: Host, path: string): Promise<boolean> {
  const { stdout } = await host.run("ls", ["-ld", path]);
  return /^\S{10}\+/.test(stdout);
}
