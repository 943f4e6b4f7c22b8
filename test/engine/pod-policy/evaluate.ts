import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { toStderr } from "../../../tools/process/progress.ts";
import { check } from "../../../tools/process/run.ts";
import type { KataRequest } from "./captured.ts";
import { rustProgram } from "./rust.ts";

export interface Answer {
  allowed: boolean;
  microseconds: number;
  /** Conditions that are broken, by the rule that the request's type names; null where the rule has none, or not asked. */
  broken: string[] | null;
}

/** The crate that Kata's agents use; docs/policy.md says of which version. */
export const policyEngine = () =>
  rustProgram(
    {
      name: "policy-engine",
      source: import.meta.dirname,
      // Rust 1.87 made Vec::len usable in such a function; Debian trixie has 1.85. It is called when programs run.
      forOlderCompiler: [{ file: "regorus-0.9.1/src/lookup.rs", from: "const fn module_len", to: "fn module_len" }],
    },
    toStderr,
  );

/**
 * Asks an agent that has just started for all `requests`, one after the other, and then for each of `each` in the state
 * that they leave; returns the answers of both in one list. Without `why` it takes half as long, and `broken` is null.
 */
export async function evaluate(
  engine: string,
  rego: string,
  requests: KataRequest[],
  each: KataRequest[] = [],
  why = true,
): Promise<Answer[]> {
  const directory = await mkdtemp(join(tmpdir(), "policy-"));
  try {
    const policy = join(directory, "policy.rego");
    await writeFile(policy, rego);
    return JSON.parse(await check(engine, [], { input: `${JSON.stringify({ policy, requests, each, why })}\n` }));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
