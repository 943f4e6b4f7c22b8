import { copyFile, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { providers } from "../tools/engine/versions.ts";
import { packageRoot } from "../tools/files/project.ts";
import { bundle } from "../tools/image/bundle.ts";

/**
 * The stand-ins' programs, each as one file: the engine starts them at each preview, and loading their modules would take
 * longer than what they do. Each file is renamed into place, because another run's plugins may be starting from it.
 *
 * @returns the directory, laid out as test/stand-ins
 */
export async function bundleStandIns(): Promise<string> {
  const directory = join(packageRoot, ".local", "stand-ins");
  await mkdir(directory, { recursive: true });
  const staging = await mkdtemp(join(packageRoot, ".local", "build-"));
  try {
    const file = (provider: string) => join(staging, `${provider}.mjs`);
    await bundle(providers.map((provider) => ({ from: `test/stand-ins/${provider}/main.ts`, to: file(provider) })));
    for (const provider of providers) {
      const launcher = join(provider, `pulumi-resource-${provider}`);
      await mkdir(join(directory, provider), { recursive: true });
      await rename(file(provider), join(directory, provider, "main.mjs"));
      await copyFile(join(import.meta.dirname, "stand-ins", launcher), join(staging, provider));
      await rename(join(staging, provider), join(directory, launcher));
    }
  } finally {
    await rm(staging, { recursive: true });
  }
  return directory;
}
