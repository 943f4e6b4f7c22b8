import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { packageRoot } from "../../files/project.ts";
import { buildPrograms } from "../../image/bundle.ts";
import { bundledPackagesFile } from "../../image/parts.ts";
import { check } from "../../process/run.ts";
import { compilePackage } from "../build.ts";
import { bringClient, clientPackage } from "./kubernetes-client.ts";

/** What the clone's package.json has for developers alone, and what keeps npm from publishing the clone by accident. */
const onlyInTheClone = ["private", "scripts", "devDependencies"];

/** What the engine starts, where the package is added by its folder. */
const plugin = "pulumi-resource-contrast-runtime";

/**
 * Compiles the package and packs it as it is published. The same sources give the same bytes.
 *
 * @param repository address of the sources, which npm compares with who publishes: "https://github.com/OWNER/NAME"
 * @returns the archive's file name
 */
export async function packPackage(output: string, repository: string): Promise<string> {
  const staged = await mkdtemp(join(tmpdir(), "contrast-runtime-package-"));
  try {
    const own = JSON.parse(await readFile(join(packageRoot, "package.json"), "utf8")) as Record<string, unknown>;
    // Not what the clone's dist/ holds: that may have more, and another command may be writing it.
    await compilePackage(join(staged, "dist"));
    await bringClient(join(staged, "dist"));
    const built = [...Object.values(await buildPrograms()), bundledPackagesFile];
    const programs = built.map((file) => relative(packageRoot, file));
    const sources = (own.files as string[]).filter((path) => path !== "dist");
    for (const path of [...sources, ...programs, "README.md", "LICENSE", "CHANGELOG.md"]) {
      await mkdir(dirname(join(staged, path)), { recursive: true });
      await cp(join(packageRoot, path), join(staged, path), { recursive: true });
    }
    const { [clientPackage]: _, ...dependencies } = own.dependencies as Record<string, string>;
    const published = {
      ...Object.fromEntries(Object.entries(own).filter(([key]) => !onlyInTheClone.includes(key))),
      dependencies,
      repository: { type: "git", url: `git+${repository}.git` },
      publishConfig: { access: "public" },
    };
    await writeFile(join(staged, "package.json"), `${JSON.stringify(published, null, 2)}\n`);
    await sameModes(staged, [...Object.values(own.bin as Record<string, string>), plugin]);
    const packed = await check("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", output], {
      cwd: staged,
    });
    const [{ filename }] = JSON.parse(packed) as [{ filename: string }];
    return filename;
  } finally {
    await rm(staged, { recursive: true, force: true });
  }
}

/** A umask is no part of the sources. */
async function sameModes(directory: string, programs: string[]): Promise<void> {
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true }))
    await chmod(join(entry.parentPath, entry.name), entry.isDirectory() ? 0o755 : 0o644);
  for (const program of programs) await chmod(join(directory, program), 0o755);
}
