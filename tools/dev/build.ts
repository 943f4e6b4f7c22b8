// npm run build: makes everything in the package that is not source. dist/ then contains the single-file programs and the
// compiled components and bin with their types, in the sources' layout: Node strips no types below node_modules.
import { copyFile, rm } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import ts from "typescript";
import { Refusal } from "../../runtime/refusal.ts";
import { packageRoot } from "../files/project.ts";
import { buildPrograms } from "../image/bundle.ts";
import { scriptsReadBy } from "../image/shell-scripts.ts";
import { runScript } from "./script.ts";

/** What other programs import, what the engine starts, and what stacks' commands call. These import the rest of the package. */
const entries = ["components/index.ts", "components/provider.ts", "tools/cli/main.ts"];

/**
 * Compiles, with the shell scripts that modules read. Returns the number of modules.
 *
 * @param dist where to: the clone's own by default
 * @throws Refusal with the compiler's messages
 */
export async function compilePackage(dist = join(packageRoot, "dist")): Promise<number> {
  const { config } = ts.readConfigFile(join(packageRoot, "tsconfig.json"), ts.sys.readFile);
  const { options } = ts.convertCompilerOptionsFromJson(
    { ...config.compilerOptions, noEmit: false, declaration: true, rootDir: ".", outDir: dist },
    packageRoot,
  );
  const program = ts.createProgram({ rootNames: entries.map((entry) => join(packageRoot, entry)), options });
  const problems = ts.getPreEmitDiagnostics(program);
  if (problems.length > 0) {
    const host = {
      getCanonicalFileName: (name: string) => name,
      getCurrentDirectory: () => packageRoot,
      getNewLine: () => "\n",
    };
    throw new Refusal("does-not-compile", ts.formatDiagnostics(problems, host).trim());
  }
  const own = program
    .getSourceFiles()
    .filter(({ fileName, isDeclarationFile }) => !isDeclarationFile && isOwn(fileName));
  // Otherwise modules that no longer exist would be packed, too.
  for (const room of new Set(own.map(({ fileName }) => relative(packageRoot, fileName).replace(/[\\/].*/, ""))))
    await rm(join(dist, room), { recursive: true, force: true });
  program.emit();
  for (const { fileName, text } of own) {
    for (const script of scriptsReadBy(text)) {
      const file = join(dirname(fileName), script);
      await copyFile(file, join(dist, relative(packageRoot, file)));
    }
  }
  return own.length;
}

const isOwn = (file: string): boolean => !/^node_modules[\\/]/.test(relative(packageRoot, file));

async function build(): Promise<number> {
  const begin = performance.now();
  const programs = await buildPrograms();
  const modules = await compilePackage();
  for (const path of Object.values(programs)) console.log(relative(packageRoot, path));
  console.log(`dist: ${modules} modules with their types`);
  console.log(`built in ${((performance.now() - begin) / 1000).toFixed(1)} s; pack it with: npm pack`);
  return 0;
}

if (import.meta.main) await runScript("npm run build", "Makes everything in the package that is not source.", build);
