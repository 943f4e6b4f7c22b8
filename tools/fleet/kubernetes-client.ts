import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type * as client from "@kubernetes/client-node";
import { isPackage, packageRoot } from "../files/project.ts";

/**
 * Kubernetes' official client, as far as commands need it. Its thousand modules take longer to load than most commands take
 * for the rest. In the package they are one file, which this import is replaced by; a clone makes that file where it is
 * missing, and another one for each version; one that cannot be written to, or has no esbuild, does without.
 */
export async function kubernetesClient(): Promise<Pick<typeof client, "KubeConfig">> {
  const file = isPackage ? undefined : await inOneFile().catch(() => undefined);
  return file === undefined ? await import("@kubernetes/client-node") : await import(pathToFileURL(file).href);
}

async function inOneFile(): Promise<string> {
  const folder = "node_modules/@kubernetes/client-node";
  const text = await readFile(join(packageRoot, folder, "package.json"), "utf8");
  const { version } = JSON.parse(text) as { version: string };
  const file = join(packageRoot, ".local", `kubernetes-client-${version}.mjs`);
  if (existsSync(file)) return file;
  const { bundle } = await import("../image/bundle.ts");
  await mkdir(join(packageRoot, ".local"), { recursive: true });
  const staging = await mkdtemp(join(packageRoot, ".local", "build-"));
  try {
    await bundle([{ from: `${folder}/dist/config.js`, to: join(staging, "client.mjs") }]);
    await rename(join(staging, "client.mjs"), file);
  } finally {
    await rm(staging, { recursive: true });
  }
  return file;
}
