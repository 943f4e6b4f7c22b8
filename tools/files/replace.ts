import { chmod, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";

/**
 * Replaces a file, or makes it, in one step: whoever reads it finds the old content or the new one, whenever this process or
 * the machine ends. The directories above it are made if they are missing.
 */
export async function replaceFile(
  file: string,
  content: string | Buffer,
  options: { mode?: number } = {},
): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o755 });
  const fresh = `${file}.new-${process.pid}`;
  try {
    await writeFile(fresh, content, { flush: true });
    if (options.mode !== undefined) await chmod(fresh, options.mode);
    await rename(fresh, file);
  } catch (error) {
    await rm(fresh, { force: true });
    throw error;
  }
}
