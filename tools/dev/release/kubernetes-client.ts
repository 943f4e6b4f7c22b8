import { readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import * as z from "zod";
import { packageRoot } from "../../files/project.ts";
import { bundle, modulesIn } from "../../image/bundle.ts";

/** Kubernetes' official client: with what it needs 85 MB of generated code, sources and types. */
export const clientPackage = "@kubernetes/client-node";

/**
 * Puts the client's code into a compiled package, as one file of 5 MB, and lets the package's modules import that. Its
 * licences, and those of what it is made of, stand beside it.
 *
 * @param dist the compiled package; nothing else may be writing it
 */
export async function bringClient(dist: string): Promise<void> {
  const file = join(dist, "kubernetes-client.mjs");
  const from = join("node_modules", clientPackage, "dist", "index.js");
  const made = await bundle([{ from, to: file }]);
  await writeFile(join(dist, "kubernetes-client.LICENSES.txt"), await licences(modulesIn(made, from)));
  for (const name of await readdir(dist, { recursive: true })) {
    if (!name.endsWith(".js")) continue;
    const path = join(dist, name);
    const text = await readFile(path, "utf8");
    const place = relative(dirname(path), file).replaceAll("\\", "/");
    const own = text.replaceAll(
      `import("${clientPackage}")`,
      `import("${place.startsWith(".") ? place : `./${place}`}")`,
    );
    if (own.includes(`from "${clientPackage}"`))
      throw new Error(`${name} loads ${clientPackage} at every start: import it where it is used.`);
    if (own !== text) await writeFile(path, own);
  }
}

const packageJson = z.object({ name: z.string(), version: z.string(), license: z.string() });

/** @param modules paths, relative to the clone */
async function licences(modules: string[]): Promise<string> {
  const folders = modules.flatMap((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path) ?? []);
  const texts = [...new Set(folders)].sort().map(async (folder) => {
    const directory = join(packageRoot, folder);
    const { name, version, license } = packageJson.parse(
      JSON.parse(await readFile(join(directory, "package.json"), "utf8")),
    );
    const files = (await readdir(directory)).filter((file) => /^(licen[cs]e|notice)/i.test(file)).sort();
    const bodies = await Promise.all(files.map((file) => readFile(join(directory, file), "utf8")));
    return [`${name} ${version} (${license})`, ...bodies.map((body) => body.trim())].join("\n\n");
  });
  return `${(await Promise.all(texts)).join(`\n\n${"=".repeat(80)}\n\n`)}\n`;
}
