import { readFileSync } from "node:fs";
import type * as pulumi from "@pulumi/pulumi";
import { z } from "zod";
import { launchValues } from "../measure/launch-values.ts";
import { type MeasuredRuntime, measuredRuntime } from "../measure/runtime.ts";
import { type Assessment, assess, explainOpen } from "../runtime/advisories.ts";
import { type Manifest, manifestSchema } from "../runtime/manifest.ts";
import { Refusal } from "../runtime/refusal.ts";
import { platformNames } from "../runtime/spec.ts";
import { checkArguments, type Shape, WrongArguments } from "./arguments.ts";
import type { Mistake } from "./config/mistakes.ts";
import type { PlatformName } from "./words.ts";

/** A runtime: a payload on a platform. Everything here decides the handler, which names resources: plain values. */
export interface PayloadArgs {
  /** aks-clh-snp, metal-qemu-snp, metal-qemu-tdx, metal-qemu-snp-gpu, metal-qemu-tdx-gpu or local. */
  platform: PlatformName;
  /**
   * The payload's manifest, a document that the lock command writes.
   *
   * @example readManifest("payloads/kata-go/manifest.json")
   */
  manifest: pulumi.Inputs;
  /**
   * Known holes of the payload's Kata that are put up with, by GHSA or CVE id. Without them such a payload is refused.
   *
   * @default []
   * @example ["GHSA-fmg6-v47x-52wr"]
   */
  acknowledgedAdvisories?: string[] | undefined;
}

export const payloadArgs = {
  platform: z.enum(platformNames),
  manifest: manifestSchema,
  acknowledgedAdvisories: z.array(z.string()).default([]),
} satisfies Shape<PayloadArgs>;

/**
 * Reads a payload's manifest.
 *
 * @param path relative paths begin at the program's working directory, which is the project's
 */
export function readManifest(path: string): Manifest {
  const mistake = (message: string) =>
    new WrongArguments("readManifest", [{ key: "path", message: `${JSON.stringify(path)} ${message}` }]);
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    if (error instanceof SyntaxError) throw mistake(`is not JSON: ${error.message}. Write it with the lock command.`);
    throw mistake("cannot be read. Expected the path of a manifest that the lock command wrote.");
  }
  return checkArguments(`readManifest ${path}`, manifestSchema, content);
}

/** A runtime as it was given, and what becomes of it. Derived once per component. */
export interface Derived<Args> extends MeasuredRuntime {
  args: Args;
  /** What a verifier will see of a guest with one vCPU. */
  launch: Record<string, string>;
  /** The known holes of its Kata: each is acknowledged or closed, or the runtime would have been refused. */
  assessment: Assessment;
}

interface CheckedPayload {
  platform: PlatformName;
  manifest: Manifest;
  acknowledgedAdvisories: string[];
}

/**
 * Derives each runtime of a list, which is at `path` among the arguments. What cannot be used is left out and among the
 * mistakes: a payload that cannot serve its platform, or whose Kata has a hole that nobody acknowledged.
 */
export function derive<Args extends CheckedPayload>(runtimes: Args[], path: string, mistakes: Mistake[]) {
  return runtimes.flatMap((args, i): Derived<Args>[] => {
    const assessment = assess(args, args.acknowledgedAdvisories);
    mistakes.push(...advisoryMistakes(`${path}[${i}]`, args.manifest, assessment));
    try {
      const runtime = measuredRuntime(args);
      return [{ ...runtime, args, launch: launchValues(runtime), assessment }];
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      mistakes.push({ key: `${path}[${i}].manifest`, message: `cannot be used: ${error.message}` });
      return [];
    }
  });
}

/** A payload with a known hole is used only where the program says that this is known. */
function advisoryMistakes(key: string, { name, kataVersion }: Manifest, { open, mistakes }: Assessment): Mistake[] {
  const say = (ids: string[]) => `add acknowledgedAdvisories: ${JSON.stringify(ids)} to the runtime`;
  const message = () => `payload ${name} holds Kata ${kataVersion}, which has known holes. ${explainOpen(open, say)}`;
  return [
    ...(open.length > 0 ? [{ key: `${key}.manifest`, message: message() }] : []),
    ...mistakes.map(({ index, message }) => ({ key: `${key}.acknowledgedAdvisories[${index}]`, message })),
  ];
}
