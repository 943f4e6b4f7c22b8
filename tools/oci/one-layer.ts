import { type Progress, toStderr } from "../process/progress.ts";
import type { Entry } from "./layer.ts";
import { type BuiltImage, type ImageConfig, writeImage } from "./layout.ts";

export { entriesOfTree } from "./layer.ts";

/** An image of one layer, such as a static program and its links, as an OCI layout. Quick when nothing changed. */
export async function buildSimpleImage(
  image: ImageConfig & { layoutDir: string; entries: Entry[] },
  progress: Progress = toStderr,
): Promise<BuiltImage> {
  const { layoutDir, entries, ...config } = image;
  return await writeImage(layoutDir, { layers: [{ name: "files", entries, compression: "none" }], config }, progress);
}
