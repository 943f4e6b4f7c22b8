import type { V1ObjectMeta } from "@kubernetes/client-node";

/** The name of an object that the API server gave: each has one, which the library's types do not say. */
export function nameOf({ metadata }: { metadata?: V1ObjectMeta }): string {
  if (metadata?.name === undefined) throw new Error("the API server gave an object without a name");
  return metadata.name;
}
