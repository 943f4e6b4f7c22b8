import { inflateRawSync } from "node:zlib";
import { Refusal } from "../../runtime/refusal.ts";

/** The signatures of PKWARE's APPNOTE, 4.3: local header, central directory, end of it. */
const [local, central, end] = [0x04034b50, 0x02014b50, 0x06054b50];

/** A file of more is none of ours. */
const largest = 64 << 20;

/** The content of a zip's only file, which is what an artifact with one file is. Throws a Refusal for any other. */
export function onlyFile(zip: Buffer, name: string): string {
  try {
    const tail = zip.lastIndexOf(signature(end));
    if (tail < 0 || zip.readUInt16LE(tail + 10) !== 1) throw new Error("it does not hold exactly one file");
    const entry = zip.readUInt32LE(tail + 16);
    if (zip.readUInt32LE(entry) !== central) throw new Error("its directory is broken");
    const [method, size, nameLength, header] = [
      zip.readUInt16LE(entry + 10),
      zip.readUInt32LE(entry + 20),
      zip.readUInt16LE(entry + 28),
      zip.readUInt32LE(entry + 42),
    ];
    const found = zip.toString("utf8", entry + 46, entry + 46 + nameLength);
    if (found !== name) throw new Error(`its file is ${JSON.stringify(found.slice(0, 100))}`);
    if (zip.readUInt32LE(header) !== local) throw new Error("its file's header is broken");
    const start = header + 30 + zip.readUInt16LE(header + 26) + zip.readUInt16LE(header + 28);
    const data = zip.subarray(start, start + size);
    if (data.length !== size) throw new Error("it ends too early");
    if (method === 0) return data.toString("utf8");
    if (method !== 8) throw new Error(`its compression ${method} is not known`);
    return inflateRawSync(data, { maxOutputLength: largest }).toString("utf8");
  } catch (error) {
    throw new Refusal("bad-artifact", `The artifact is no zip of ${name} alone: ${(error as Error).message}.`);
  }
}

function signature(number: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(number);
  return bytes;
}
