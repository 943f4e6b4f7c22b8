import { readFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { Refusal } from "../../runtime/refusal.ts";

/** Where `npm run image` leaves the installer's image, below the project. */
export const imageLayout = ".local/image";

/** How the OCI image layout specification refers to a blob. */
export const descriptorSchema = z.object({
  mediaType: z.string(),
  digest: z.string().regex(/^sha256:[0-9a-f]{64}$/, { error: "must be sha256:<64 hex digits>" }),
  size: z.int().min(0),
});
export type Descriptor = z.infer<typeof descriptorSchema>;

/** Beside the image, the index names what is attached to it; that has an artifact type. */
export const indexSchema = z.object({
  schemaVersion: z.literal(2),
  manifests: z.array(descriptorSchema.extend({ artifactType: z.string().optional() })),
});

/** The image's manifest, as the layout's index.json names it. @throws Refusal if there is no image, or more than one */
export async function readImageIndex(layoutDir: string): Promise<Descriptor> {
  let text: string;
  try {
    text = await readFile(join(layoutDir, "index.json"), "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    throw new Refusal("image-missing", `There is no image at ${layoutDir}. Build it with: npx contrast-runtime image`);
  }
  try {
    const { manifests } = indexSchema.parse(JSON.parse(text));
    const [manifest, ...others] = manifests.filter(({ artifactType }) => artifactType === undefined);
    if (manifest && others.length === 0) return manifest;
  } catch (error) {
    throw brokenImage(layoutDir, `index.json is not the index of one image (${(error as Error).message})`);
  }
  throw brokenImage(layoutDir, "index.json does not name one image");
}

export const brokenImage = (layoutDir: string, what: string): Refusal =>
  new Refusal(
    "image-broken",
    `The image at ${layoutDir} is broken: ${what}. Delete that directory and build it again: npx contrast-runtime image`,
  );
