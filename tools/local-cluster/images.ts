import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { packageRoot } from "../files/project.ts";
import { buildSimpleImage } from "../oci/one-layer.ts";
import type { Progress } from "../process/progress.ts";
import { check } from "../process/run.ts";
import { cacheDirectory } from "../programs/cache.ts";
import { busyboxProgram, pauseProgram } from "../programs/pinned.ts";
import type { ClusterLayout } from "./layout.ts";
import { runInNetwork } from "./network.ts";
import { waitFor } from "./units.ts";

/** An image that every cluster's registry has from the start. */
export interface SeedImage {
  name: "pause" | "busybox";
  layout: string;
  digest: string;
}

export async function seedImages(progress: Progress): Promise<SeedImage[]> {
  const [pause, busybox] = await Promise.all([pauseProgram(progress), busyboxProgram(progress)]);
  const applets = (await check(busybox, ["--list"])).split("\n").filter((name) => name && name !== "busybox");
  const program = (path: string, source: string) => ({ path, mode: 0o755, type: "file" as const, source });
  return await Promise.all([
    seed("pause", { entries: [program("pause", pause)], entrypoint: ["/pause"] }),
    seed("busybox", {
      entries: [
        { path: "bin", mode: 0o755, type: "directory" },
        { path: "tmp", mode: 0o1777, type: "directory" },
        program("bin/busybox", busybox),
        ...applets.map((name) => ({ path: `bin/${name}`, mode: 0o777, type: "symlink" as const, target: "busybox" })),
      ],
      command: ["/bin/sh"],
    }),
  ]);
}

type Content = Omit<Parameters<typeof buildSimpleImage>[0], "layoutDir">;

async function seed(name: SeedImage["name"], content: Content): Promise<SeedImage> {
  const layout = join(cacheDirectory(), "images", name);
  await mkdir(join(layout, ".."), { recursive: true });
  const { digest } = await buildSimpleImage({ layoutDir: layout, ...content }, () => {});
  return { name, layout, digest };
}

/** How nodes and pods name the image. */
export const imageReference = (cluster: ClusterLayout, image: { name: string; digest: string }): string =>
  `${cluster.registry}/${image.name}@${image.digest}`;

/** Pushes what this cluster's registry does not have yet. */
export async function pushSeedImages(cluster: ClusterLayout, images: SeedImage[]): Promise<void> {
  await Promise.all(
    images.map(async ({ name, layout, digest }) => {
      const pushed = join(cluster.directory, `pushed-${name}`);
      if ((await readFile(pushed, "utf8").catch(() => "")) === digest) return;
      const program = join(packageRoot, "tools", "cli", "bin.mjs");
      const options = { layout, registry: `http://${cluster.registry}`, repository: name };
      const flags = Object.entries(options).map(([key, value]) => `--${key}=${value}`);
      const push = () => runInNetwork(cluster, [process.execPath, program, "image", "push", ...flags]);
      await waitFor(cluster, "registry", `The image ${name} cannot be pushed to the registry`, 60_000, async () => {
        const { code, stdout } = await push();
        // It prints the image's reference: a program that did nothing has pushed nothing.
        return (code === 0 && stdout.includes(digest)) || undefined;
      });
      await writeFile(pushed, digest);
    }),
  );
}
