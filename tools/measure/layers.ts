import { imageLayers } from "../lock/image-layers.ts";
import { toStderr } from "../process/progress.ts";
import { readWhole } from "./files.ts";

/** The dm-verity root hash of each of an image's layers. */
export async function layers(image: string, caFile: string | undefined): Promise<object> {
  const ca = caFile === undefined ? undefined : Buffer.from(readWhole(caFile)).toString();
  return await imageLayers(image, { ca }, toStderr);
}
