/**
 * `KubeConfig` of Kubernetes' client, bundled into one file: the client is a thousand modules, and to load them at each start
 * of the plugin would take longer than the rest of it. The file is made once for each version of the client.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type * as client from "@kubernetes/client-node";
import { packageRoot } from "../../../tools/files/project.ts";
import { cached } from "../../../tools/programs/cache.ts";

const folder = "node_modules/@kubernetes/client-node";
const { version } = JSON.parse(await readFile(join(packageRoot, folder, "package.json"), "utf8")) as {
  version: string;
};
const file = "client.mjs";

async function make(directory: string): Promise<void> {
  const { bundle } = await import("../../../tools/image/bundle.ts");
  await bundle([{ from: `${folder}/dist/config.js`, to: join(directory, file) }]);
}

const directory = await cached({ name: `kubernetes-client-${version}`, inputs: version, make }, () => {});
const loaded = (await import(pathToFileURL(join(directory, file)).href)) as Pick<typeof client, "KubeConfig">;

export const KubeConfig = loaded.KubeConfig;
export type KubeConfig = client.KubeConfig;
