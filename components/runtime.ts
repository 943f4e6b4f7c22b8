import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type * as pulumi from "@pulumi/pulumi";
import * as z from "zod";
import { type Manifest, manifestSchema } from "../runtime/manifest.ts";
import { platformNames } from "../runtime/spec.ts";
import { type Shape, WrongArguments } from "./arguments.ts";
import { type Derived, derive, type GivenRuntime } from "./config/derivation.ts";
import { parseManifest } from "./config/manifest.ts";
import type { Mistake } from "./config/mistakes.ts";
import { runtimeSettings } from "./config/runtime-schema.ts";
import type { DistributionName, PlatformName } from "./words.ts";

/** A runtime: a payload on a platform. Everything here decides the handler, which names resources: plain values. */
export interface PayloadArgs {
  /** aks-clh-snp, metal-qemu-snp, metal-qemu-tdx, metal-qemu-snp-gpu, metal-qemu-tdx-gpu, metal-qemu-insecure or local. */
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
  /**
   * Further keys of Kata's configuration by table (hypervisor, agent, runtime), checked against what this Kata knows.
   *
   * @default none
   * @example { agent: { dial_timeout: 300 } }
   */
  kata?: pulumi.Inputs | undefined;
  /**
   * Kata logs everything on the host. What is measured stays the same; the handler's name says "debug".
   *
   * @default false
   */
  debug?: boolean | undefined;
  /**
   * For guests of upstream Kata: the proxy of everything in the guest, on the measured kernel command line.
   *
   * @default none
   * @example { https: "http://proxy.example.com:3128", noProxy: ".example.com" }
   */
  guestProxy?: GuestProxyArgs | undefined;
  /**
   * Keys below `kata` that weaken the guest and are wanted all the same; the handler's name says "insecure".
   *
   * @default []
   * @example ["agent.debug_console_enabled"]
   */
  acknowledgedWeakenings?: string[] | undefined;
}

/** How programs in a guest reach the outside. Plain: it is part of the handler. */
export interface GuestProxyArgs {
  /** For requests by https: http://host:port, without a login. */
  https: string;
  /**
   * What is reached without it: names, addresses and networks, separated by commas.
   *
   * @default none
   */
  noProxy?: string | undefined;
}

export const payloadArgs = {
  platform: z.enum(platformNames),
  manifest: manifestSchema,
  acknowledgedAdvisories: z.array(z.string()).default([]),
  ...runtimeSettings,
} satisfies Shape<PayloadArgs>;

/**
 * Reads a payload's manifest.
 *
 * @param path relative paths begin at the program's working directory, which is the project's
 */
export function readManifest(path: string): Manifest {
  const mistake = (message: string) =>
    new WrongArguments("readManifest", [{ key: "path", message: `${JSON.stringify(path)} ${message}` }]);
  let text: string;
  try {
    text = readFileSync(resolve(path), "utf8");
  } catch (error) {
    throw mistake(
      `cannot be read: ${(error as Error).message}. Expected the path of a manifest that the lock command wrote.`,
    );
  }
  const manifest = parseManifest(text);
  if (typeof manifest === "string") throw mistake(`${manifest} Write it with the lock command.`);
  return manifest;
}

/**
 * Derives each runtime of a group's list, which is at `path` among the arguments; with `guestRegistry`, guests that read on
 * the node how to reach registries are told so. One that cannot be used is left out and among the
 * mistakes.
 */
export const deriveEach = <Given extends GivenRuntime>(
  runtimes: Given[],
  distribution: DistributionName,
  path: string,
  mistakes: Mistake[],
  guestRegistry = false,
): Derived<Given>[] =>
  runtimes.flatMap((given, i) => {
    const terms = {
      key: `${path}[${i}]`,
      manifest: "manifest",
      payload: `payload ${given.manifest.name}`,
      unusable: "",
    };
    return derive({ ...given, distribution }, { ...terms, acknowledging, guestRegistry }, mistakes) ?? [];
  });

const acknowledging = (ids: string[]): string => `acknowledgedAdvisories: ${JSON.stringify(ids)}`;
