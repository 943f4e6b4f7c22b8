import { closeSync, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import { type ByteSource, sourceOf } from "../../measure/bytes.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { cannotBeRead } from "../../runtime/unreadable.ts";

/**
 * A file as a ByteSource, closed when `use` returns. One buffer is reused for chunks, so memory stays constant; what has
 * no size of its own, such as a pipe, is read to its end first.
 */
export function withFile<Result>(path: string, use: (source: ByteSource) => Result): Result {
  const descriptor = open(path);
  try {
    const status = fstatSync(descriptor);
    if (status.isDirectory()) throw new Refusal("no-file", `${path} is a directory, expected a file.`);
    if (status.isBlockDevice()) throw new Refusal("no-file", `${path} is a block device, expected a file.`);
    if (!status.isFile()) return use(sourceOf(readFileSync(descriptor)));
    const { size } = status;
    let buffer = Buffer.alloc(0);
    return use({
      size,
      read(offset, length) {
        if (buffer.length < length) buffer = Buffer.allocUnsafe(length);
        const target = buffer.subarray(0, length);
        for (let done = 0; done < length; ) {
          const count = readSync(descriptor, target, done, length - done, offset + done);
          if (count === 0)
            throw new Refusal(
              "file-changed",
              `${path} ended at byte ${offset + done} while it was read; expected ${size} bytes.`,
            );
          done += count;
        }
        return target;
      },
    });
  } finally {
    closeSync(descriptor);
  }
}

function open(path: string): number {
  try {
    return openSync(path, "r");
  } catch (error) {
    throw new Refusal("no-file", `${cannotBeRead(path, error)}.`);
  }
}
