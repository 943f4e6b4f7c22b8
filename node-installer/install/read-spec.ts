import { readFile } from "node:fs/promises";
import type * as z from "zod";
import { sha256 } from "../../runtime/canonical.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { type InstallSpec, installSpecSchema } from "../../runtime/spec.ts";
import { cannotBeRead } from "../../runtime/unreadable.ts";

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
    throw new Refusal("bad-spec", `The install spec ${cannotBeRead(path, error)}.`, {
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
  if (!parsed.success) {
    throw new Refusal(
      "bad-spec",
      `The install spec ${path} is not valid: ${parsed.error.issues.map(describe).join("; ")}. It is rendered by the Pulumi program; do not edit it by hand.`,
    );
  }
  return parsed.data;
}

const describe = ({ path, message }: z.core.$ZodIssue): string => `${path.join(".") || "the document"}: ${message}`;
