import { readFile } from "node:fs/promises";
import type { Plugin } from "esbuild";

/*
 * Shell scripts, and rules in Rego, are files of their own, beside the module that reads them, so that shellcheck and
 * editors know them. A module reads one with the words below, and in no others. That is plain Node, so it works as it stands where modules are
 * files: run from the sources, by Vitest, and compiled (`npm run build` copies the scripts along). Only a bundle, which is a
 * single file, has to take the text in, and the words tell the bundler what to take. Imports of text would need a loader
 * wherever a module is run, Pulumi's own process included; modules made from scripts would be a second copy of each.
 */
const reading = /\breadFileSync\(new URL\("([\w-]+\.(?:sh|rego))", import\.meta\.url\), "utf8"\)/g;

/** The scripts that a module's text reads, by their names in its directory. */
export const scriptsReadBy = (source: string): string[] => [...source.matchAll(reading)].map(([, name = ""]) => name);

/** Replaces the reading of a script by its text. */
export const inlineScripts: Plugin = {
  name: "inline-scripts",
  setup({ onLoad }) {
    onLoad({ filter: /\.ts$/ }, async ({ path }) => {
      const source = await readFile(path, "utf8");
      if (!source.includes(".sh")) return undefined;
      const names = scriptsReadBy(source);
      const imports = names.map((name, i) => `import shellScript${i} from "./${name}";`);
      let next = 0;
      const contents = [...imports, source.replaceAll(reading, () => `shellScript${next++}`)].join("\n");
      if (/\.sh"[^\n]*import\.meta/.test(contents))
        return {
          errors: [{ text: `${path} reads a shell script in other words than tools/image/shell-scripts.ts knows` }],
        };
      return { contents, loader: "ts" };
    });
  },
};
