/** The documents of the OCI image specification, as far as they are read here. */
import * as z from "zod";
import { descriptorSchema, indexSchema } from "../../components/config/image-layout.ts";

export const manifestType = "application/vnd.oci.image.manifest.v1+json";
export const indexType = "application/vnd.oci.image.index.v1+json";

/** Of an image, or of what is attached to one. */
export const manifestSchema = z.object({
  config: descriptorSchema,
  layers: z.array(descriptorSchema.extend({ annotations: z.record(z.string(), z.string()).optional() })),
});

/** Of a layout or of a registry, where images for several platforms share a name. */
export const platformIndexSchema = indexSchema.extend({
  manifests: z.array(
    indexSchema.shape.manifests.element.extend({
      platform: z.object({ architecture: z.string(), os: z.string() }).optional(),
    }),
  ),
});
