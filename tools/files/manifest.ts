import { readFile } from "node:fs/promises";
import { parseManifest } from "../../components/config/manifest.ts";
import type { Manifest } from "../../runtime/manifest.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { cannotBeRead } from "../../runtime/unreadable.ts";

/**
 * The manifest in a file.
 *
 * @param remedy a sentence that says what to do about one that cannot be used
 * @throws Refusal where there is none, or no valid one
 */
export async function readManifest(file: string, remedy: string): Promise<Manifest> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw new Refusal("manifest-unreadable", `${cannotBeRead(file, error)}. ${remedy}`, {
      cause: error,
    });
  }
  const manifest = parseManifest(text);
  if (typeof manifest === "string") throw new Refusal("manifest-invalid", `${file} ${manifest} ${remedy}`);
  return manifest;
}
