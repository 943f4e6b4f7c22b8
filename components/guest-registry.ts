import type * as pulumi from "@pulumi/pulumi";
import * as z from "zod";
import type { GuestRegistry } from "../runtime/guest-registry.ts";
import { input, type Shape } from "./arguments.ts";
import { guestRegistry } from "./config/registry-schema.ts";

/** How guests that pull images themselves reach registries. */
export interface GuestRegistryArgs {
  /**
   * The proxy by which guests pull images.
   *
   * @default none
   */
  proxy?: GuestRegistryProxyArgs | undefined;
  /**
   * By the registry's host, as images name it.
   *
   * @default none
   */
  registries?: Record<string, RegistryAccessArgs> | undefined;
  /**
   * For Contrast's guests: content of a .dockerconfigjson with user names and passwords. A secret.
   *
   * @default none
   */
  credentials?: pulumi.Input<string> | undefined;
  /**
   * For guests of upstream Kata: where their key broker has such a file.
   *
   * @default none
   * @example "kbs:///default/credential/pull"
   */
  credentialsUri?: string | undefined;
}

/** A proxy for image pulls. */
export interface GuestRegistryProxyArgs {
  /**
   * For registries that are reached by https: http://host:port, without a login.
   *
   * @default none
   */
  https?: string | undefined;
  /**
   * For registries that are reached by http.
   *
   * @default none
   */
  http?: string | undefined;
  /**
   * What is reached without it: names, addresses, networks, separated by commas.
   *
   * @default none
   */
  noProxy?: string | undefined;
}

/** How one registry is reached. */
export interface RegistryAccessArgs {
  /**
   * Certificates of its authorities in PEM.
   *
   * @default none: its certificate is a public one
   */
  ca?: string | undefined;
  /**
   * host[:port] from which its images are taken.
   *
   * @default none
   */
  mirror?: string | undefined;
}

const { credentials, ...plain } = guestRegistry.shape;

export const guestRegistryArgs = z.strictObject({
  ...plain,
  credentials: input(credentials),
} satisfies Shape<GuestRegistryArgs>);

/** What of it everybody may read. */
export function withoutLogins(given: z.output<typeof guestRegistryArgs> | undefined): GuestRegistry | undefined {
  if (given === undefined) return undefined;
  const { credentials, ...rest } = given;
  return rest;
}
