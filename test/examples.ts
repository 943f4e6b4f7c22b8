import { readdirSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../tools/files/project.ts";

/** The names of the examples' stacks. */
export const examples = readdirSync(join(packageRoot, "examples")).flatMap(
  (file) => /^Pulumi\.(.+)\.yaml$/.exec(file)?.[1] ?? [],
);
