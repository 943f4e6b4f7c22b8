/** This repository's own program under the real engine, for tests. */
import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { packageRoot } from "../../tools/files/project.ts";
import { type EngineProject, engineProject } from "./harness.ts";

export const fixture = (name: string) => `test/fixtures/manifests/fixture-${name}.json`;
export const image = (digit: string) => `registry.example.com/contrast-node-installer@sha256:${digit.repeat(64)}`;

export type Configuration = Record<string, unknown>;

/** A project that runs the program of this clone. */
export const programProject = (stack: string, env: Record<string, string> = {}): Promise<EngineProject> =>
  engineProject({ directory: packageRoot, stack, env });

/** Writes the stack's file, keeping the salt that the engine put there. */
export async function configure(target: EngineProject, stack: string, configuration: Configuration): Promise<void> {
  const file = join(target.directory, `Pulumi.${stack}.yaml`);
  const { encryptionsalt } = parse(await readFile(file, "utf8").catch(() => "{}")) ?? {};
  const config = Object.fromEntries(
    Object.entries(configuration).map(([key, value]) => [`contrast-runtime:${key}`, value]),
  );
  await writeFile(`${file}.new`, stringify({ encryptionsalt, config }));
  await rename(`${file}.new`, file);
}

/**
 * "create RuntimeClass contrast-cc-…", sorted; for a replacement only the step that says so. The hash in a spec's name is
 * left out.
 */
export async function operations(target: EngineProject, ...args: string[]): Promise<string[]> {
  const steps = await target.plan(...args);
  return steps
    .filter(({ op }) => op !== "create-replacement" && op !== "delete-replaced")
    .map(({ op, urn }) => {
      const [type = "", name = ""] = urn.split("::").slice(2);
      return `${op} ${type.split("$").at(-1)?.split(":").at(-1)} ${name}`.replace(
        /(?<=ConfigMap .*)-[0-9a-f]{8}$/,
        "-SPEC",
      );
    })
    .sort();
}
