import { readFile } from "node:fs/promises";
import type { z } from "zod";
import { sha256 } from "../../runtime/canonical.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { type InstallSpec, installSpecSchema, runtimeDirectory } from "../../runtime/spec.ts";

export interface ReadSpec {
  spec: InstallSpec;
  /** SHA-256 of the file's bytes. */
  specHash: string;
}

/** Reads and checks an install spec; one sentence lists every mistake in it with its place. */
export async function readSpec(path: string): Promise<ReadSpec> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw new Refusal("bad-spec", `The install spec ${path} cannot be read: ${(error as Error).message}.`, {
      cause: error,
    });
  }
  return { spec: parseSpec(bytes.toString(), path), specHash: sha256(bytes) };
}

function parseSpec(text: string, path: string): InstallSpec {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw new Refusal("bad-spec", `The install spec ${path} is not JSON: ${(error as Error).message}.`, {
      cause: error,
    });
  }
  const parsed = installSpecSchema.safeParse(document);
  const problems = parsed.success ? inconsistencies(parsed.data) : parsed.error.issues.map(describe);
  if (!parsed.success || problems.length > 0) {
    throw new Refusal(
      "bad-spec",
      `The install spec ${path} is not valid: ${problems.join("; ")}. It is rendered by the Pulumi program; do not edit it by hand.`,
    );
  }
  return parsed.data;
}

const describe = ({ path, message }: z.core.$ZodIssue): string => `${path.join(".") || "the document"}: ${message}`;

/** What the schema cannot express: names that become paths, lines of a unit file or keys must be nothing but that. */
function inconsistencies({ runtimes, distribution }: InstallSpec): string[] {
  const problems: string[] = [];
  const seen = new Set<string>();
  const version = distribution.containerdVersion;
  if (version !== undefined && !/^v?\d+\.\d+\.\d+/.test(version)) {
    problems.push(
      `distribution.containerdVersion: ${JSON.stringify(version)} is not a version such as 1.7.24 or 2.2.9`,
    );
  }
  for (const [index, { handler, payload, files, kataConfig, containerd }] of runtimes.entries()) {
    const place = `runtimes.${index}`;
    if (seen.has(handler)) problems.push(`${place}.handler: ${handler} is listed twice`);
    seen.add(handler);
    if (!/^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/.test(payload)) {
      problems.push(`${place}.payload: ${JSON.stringify(payload)} is not the name of a payload`);
    }
    const own = `${runtimeDirectory(handler)}/`;
    const inside = {
      "containerd.runtimePath": containerd.runtimePath,
      "containerd.options.ConfigPath": containerd.options?.ConfigPath,
    };
    for (const [key, path] of Object.entries(inside)) {
      if (path !== undefined && !path.startsWith(own)) {
        problems.push(`${place}.${key}: ${path} is not below ${own}`);
      }
    }
    const paths = [...files.map(({ path }) => path), kataConfig.path];
    const folder = paths.find((path) => paths.some((other) => other.startsWith(`${path}/`)));
    if (folder !== undefined) problems.push(`${place}.files: ${folder} is a file, but also the folder of another file`);
    if (new Set(paths).size < paths.length) problems.push(`${place}.files: a path is listed twice`);
  }
  return problems;
}
