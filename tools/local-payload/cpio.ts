import { readFile } from "node:fs/promises";
import { completeEntries } from "../oci/layer.ts";
import type { Entry } from "../oci/tar.ts";

const kinds = { directory: 0o040000, file: 0o100000, symlink: 0o120000 };
const align = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);

/**
 * An initial RAM disk: the "newc" cpio format that the kernel unpacks (its Documentation/driver-api/early-userspace), owned
 * by root and dated 1970, so that the same entries give the same bytes. Built in memory, so only for a few megabytes.
 */
export async function cpio(entries: Entry[]): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (const [index, entry] of completeEntries(entries).entries()) {
    const mode = kinds[entry.type] | entry.mode;
    parts.push(record(index + 1, entry.path, mode, await contentOf(entry)));
  }
  return Buffer.concat([...parts, record(0, "TRAILER!!!", 0, Buffer.alloc(0))]);
}

async function contentOf(entry: Entry): Promise<Buffer> {
  if (entry.type === "directory") return Buffer.alloc(0);
  if (entry.type === "symlink") return Buffer.from(entry.target);
  return "content" in entry ? Buffer.from(entry.content) : await readFile(entry.source);
}

/** Fields in the format's order, 8 hex digits each; header with name, and content, each padded to 4 bytes. */
function record(inode: number, path: string, mode: number, content: Buffer): Buffer {
  const name = Buffer.from(`${path}\0`);
  const links = 1;
  const fields = [inode, mode, 0, 0, links, 0, content.length, 0, 0, 0, 0, name.length, 0];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`;
  return Buffer.concat([align(Buffer.concat([Buffer.from(header), name])), align(content)]);
}
