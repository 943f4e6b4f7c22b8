import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { build, type Metafile } from "esbuild";
import { packageRoot } from "../files/project.ts";
import { bundledPackagesFile, packagesOf } from "./parts.ts";
import { inlineScripts } from "./shell-scripts.ts";

/** The programs that are shipped as single files; `from` and `to` are relative to the clone. */
const programs = {
  nodeInstaller: { from: "node-installer/main.ts", to: "dist/node-installer.mjs" },
  measure: { from: "tools/measure/main.ts", to: "dist/measure.mjs" },
};
type Built = Record<keyof typeof programs, string>;

/**
 * Bundles programs for Node 24. Modules that only some commands need are evaluated only when they are imported. CommonJS
 * packages load Node's modules with `require`, which the banner defines. Paths are relative to the clone.
 */
export async function bundle(programs: { from: string; to: string }[]): Promise<Metafile> {
  const { metafile } = await build({
    absWorkingDir: packageRoot,
    entryPoints: programs.map(({ from, to }) => ({ in: from, out: resolve(packageRoot, to).replace(/\.mjs$/, "") })),
    outdir: "/",
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    target: "node24",
    format: "esm",
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: "none",
    // Node before 22.18 does not define it; a program that takes itself for an import would exit silently.
    define: { "import.meta.main": "true" },
    loader: { ".sh": "text" },
    plugins: [inlineScripts],
    banner: {
      js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
    },
    logLevel: "warning",
    metafile: true,
  });
  return metafile;
}

/** The modules whose code is in the program that a file began with. */
export const modulesIn = ({ outputs }: Metafile, entryPoint: string): string[] =>
  Object.values(outputs)
    .filter((output) => output.entryPoint === entryPoint)
    .flatMap(({ inputs }) => Object.entries(inputs))
    .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
    .map(([path]) => path);

/** Returns the files' paths. Each file is renamed into place, because another process may be reading the previous one. */
export async function buildPrograms(): Promise<Built> {
  for (const folder of ["dist", ".local"]) await mkdir(join(packageRoot, folder), { recursive: true });
  const staging = await mkdtemp(join(packageRoot, ".local", "build-"));
  try {
    const made = await bundle(Object.values(programs).map(({ from, to }) => ({ from, to: join(staging, to) })));
    const packages = await packagesOf(modulesIn(made, programs.nodeInstaller.from));
    await writeFile(join(staging, "packages.json"), JSON.stringify(packages));
    await rename(join(staging, "packages.json"), bundledPackagesFile);
    for (const { to } of Object.values(programs)) await rename(join(staging, to), join(packageRoot, to));
  } finally {
    await rm(staging, { recursive: true });
  }
  return {
    nodeInstaller: join(packageRoot, programs.nodeInstaller.to),
    measure: join(packageRoot, programs.measure.to),
  };
}
