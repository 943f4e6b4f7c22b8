import { text } from "node:stream/consumers";
import { extract } from "tar-stream";
import { Refusal } from "../../runtime/refusal.ts";
import { decompressed } from "../lock/archives.ts";
import type { Progress } from "../process/progress.ts";

export const userFiles = ["passwd", "group"] as const;
type Name = (typeof userFiles)[number];

/** /etc/passwd and /etc/group of an image; absent where it has none, or a link in its place. */
export type ImageUsers = { [name in Name]?: string };

/**
 * Reads layers from the top down until both are found, as a container would see them.
 *
 * @param layers each gives the layer's file, lowest first; those below the last one needed are not asked for
 * @throws Refusal for a layer that is no whole archive
 */
export async function imageUsers(layers: (() => Promise<string>)[], progress: Progress): Promise<ImageUsers> {
  const found: ImageUsers = {};
  const open = new Set<Name>(userFiles);
  for (const layer of layers.toReversed()) {
    const file = await layer();
    const { contents, hidden } = await readLayer(file, progress);
    for (const name of open) {
      const content = contents[name];
      if (content !== undefined) found[name] = content;
      if (content !== undefined || hidden.has(name)) open.delete(name);
    }
    if (open.size === 0) break;
  }
  return found;
}

/** What a layer has of the two files, and which it takes away from layers below. */
async function readLayer(file: string, progress: Progress): Promise<{ contents: ImageUsers; hidden: Set<Name> }> {
  const contents: ImageUsers = {};
  const hidden = new Set<Name>();
  const { source, finished } = await decompressed(file, progress);
  const archive = extract();
  const read = async () => {
    for await (const entry of archive) {
      const path = entry.header.name.replace(/^(\.?\/)+/, "").replace(/\/$/, "");
      const name = userFiles.find((each) => path === `etc/${each}`);
      if (name !== undefined && entry.header.type === "file") contents[name] = await text(entry);
      else {
        // Whatever a link leads to is not looked for.
        if (name !== undefined) hidden.add(name);
        entry.resume();
      }
      for (const each of userFiles)
        if ([`etc/.wh.${each}`, ".wh.etc", "etc/.wh..wh..opq", ".wh..wh..opq"].includes(path)) hidden.add(each);
    }
  };
  source.on("error", (error) => archive.destroy(error)).pipe(archive);
  await Promise.all([read(), finished]).catch((error: Error) => {
    throw new Refusal(
      "layer-broken",
      `${file} is no whole layer: ${error.message}. Delete it and run the command again.`,
    );
  });
  return { contents, hidden };
}
