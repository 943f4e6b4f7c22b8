import { type Manifest, manifestSchema } from "../../runtime/manifest.ts";
import { check } from "./mistakes.ts";

/** The manifest that a text is, or what is wrong with it: a sentence that goes on after the file's name. */
export function parseManifest(text: string): Manifest | string {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    return `is not JSON: ${error instanceof Error ? error.message : error}.`;
  }
  const { value, mistakes } = check(manifestSchema, content, "");
  if (value) return value;
  // A program writes manifests: one mistake says that this is something else.
  const [first] = mistakes;
  return `is not a manifest: ${first?.key || "the document"} ${first?.message}`;
}
