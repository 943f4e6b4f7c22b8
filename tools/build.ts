import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { build } from "esbuild";

const clone = resolve(import.meta.dirname, "..");

/** The programs that are shipped as one file each; `from` and `to` are relative to the clone. */
const programs = [
  { from: "node-installer/main.ts", to: "dist/node-installer.mjs" },
  { from: "tools/measure.ts", to: "dist/measure.mjs" },
];

/**
 * Bundles the programs for Node 24. Modules that only some commands need stay unevaluated until they are imported;
 * gRPC's own CommonJS finds Node's modules through `require`, which a module has to make for it.
 */
export async function buildPrograms(): Promise<{ to: string; bytes: number }[]> {
  await build({
    absWorkingDir: clone,
    entryPoints: programs.map(({ from, to }) => ({ in: from, out: to.replace(/\.mjs$/, "") })),
    outdir: ".",
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    target: "node24",
    format: "esm",
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: "none",
    loader: { ".proto": "text" },
    banner: {
      js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
    },
    logLevel: "warning",
  });
  return Promise.all(programs.map(async ({ to }) => ({ to, bytes: (await stat(join(clone, to))).size })));
}

if (import.meta.main) {
  const started = performance.now();
  for (const { to, bytes } of await buildPrograms()) console.log(`${to}  ${(bytes / 1024).toFixed(0)} KiB`);
  console.log(`built in ${(performance.now() - started).toFixed(0)} ms`);
}
