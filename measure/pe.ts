import { createHash } from "node:crypto";
import { type ByteSource, chunksOf, copyOf, sliceSource, View } from "./bytes.ts";

const file = "kernel";

/**
 * The Authenticode digest of a PE executable, as firmware measures what it loads (edk2 OvmfPkg/Tcg/TdTcg2Dxe,
 * MeasureBootPeCoff.c): the headers without checksum and entry of the certificate table, the sections by their place in the
 * file, then what follows them, without the certificates. Throws a FormatError for headers that firmware would not load.
 */
export function authenticode(source: ByteSource, algorithm: "sha256" | "sha384"): Buffer {
  const head = new View(copyOf(source.read(0, Math.min(source.size, 65536))), file);
  const pe = head.u32(0x3c, "PE header offset");
  if (head.text(pe, 4, "PE header") !== "PE") head.fail(pe, "is no PE executable");
  const optional = pe + 24;
  const magic = head.u16(optional, "PE optional header");
  if (magic !== 0x10b && magic !== 0x20b)
    head.fail(optional, `has the PE format 0x${magic.toString(16)}, expected 0x10b or 0x20b`);
  const directories = optional + (magic === 0x10b ? 92 : 108);
  const hasCertificates = head.u32(directories, "number of PE directories") > 4;
  const certificates = directories + 4 + 4 * 8;
  const certificateSize = hasCertificates ? head.u32(certificates + 4, "size of the certificates") : 0;
  const headersSize = head.u32(optional + 60, "size of the PE headers");
  const checksum = optional + 64;
  const headersEnd = hasCertificates ? certificates + 8 : checksum + 4;
  if (headersSize < headersEnd || headersSize > source.size)
    head.fail(
      optional + 60,
      `says that its PE headers have ${headersSize} bytes, expected ${headersEnd} to ${source.size}`,
    );

  const sections = sectionsOf(head, pe);
  const ranges: [from: number, to: number][] = [
    [0, checksum],
    ...(hasCertificates
      ? ([
          [checksum + 4, certificates],
          [certificates + 8, headersSize],
        ] satisfies [number, number][])
      : ([[checksum + 4, headersSize]] satisfies [number, number][])),
    ...sections.map(({ at, size }): [number, number] => [at, at + size]),
  ];
  const covered = headersSize + sections.reduce((sum, { size }) => sum + size, 0);
  if (covered + certificateSize > source.size)
    head.fail(
      pe,
      `has PE sections and certificates of ${covered + certificateSize} bytes, but there are ${source.size}`,
    );
  ranges.push([covered, source.size - certificateSize]);

  const digest = createHash(algorithm);
  for (const [from, to] of ranges) {
    if (to > source.size) head.fail(pe, `has a PE section up to ${to}, but there are ${source.size} bytes`);
    for (const chunk of chunksOf(sliceSource(source, from, to - from))) digest.update(chunk);
  }
  return digest.digest();
}

/** Those with bytes in the file, in the order of these. */
function sectionsOf(head: View, pe: number): { at: number; size: number }[] {
  const count = head.u16(pe + 6, "number of PE sections");
  const table = pe + 24 + head.u16(pe + 20, "size of the PE optional header");
  return Array.from({ length: count }, (_, index) => table + index * 40)
    .map((entry) => ({
      size: head.u32(entry + 16, "size of a PE section"),
      at: head.u32(entry + 20, "place of a PE section"),
    }))
    .filter(({ size }) => size > 0)
    .toSorted((a, b) => a.at - b.at);
}
