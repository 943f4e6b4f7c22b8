import * as z from "zod";
import type { GuestRegistry } from "../../runtime/guest-registry.ts";
import { guestProxy } from "../../runtime/kernel-parameters.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { authorities } from "./certificates.ts";
import { registryHost } from "./image-reference.ts";

/* The stack's key `registry`: how nodes and guests reach registries. */

const must = (error: string) => ({ error });

export const secret = z.string().min(1, must("must not be empty")).meta({ secret: true });

/** What kubelets read. */
export const dockerConfiguration = secret.refine((text) => {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && "auths" in value;
  } catch {
    return false;
  }
}, must('must be the content of a .dockerconfigjson: {"auths": {"<registry>": {"auth": …}}}'));

/** Certificates in PEM; the output is their canonical form, and nothing else of the text. */
export const registryCa = z
  .string()
  .meta({ pattern: "-----BEGIN CERTIFICATE-----" })
  .transform((pem, { addIssue }) => {
    try {
      return authorities(pem);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      addIssue({ code: "custom", message: error.message, input: pem });
      return z.NEVER;
    }
  });

const proxyAddress = z
  .string()
  .regex(
    /^https?:\/\/[A-Za-z0-9.:[\]-]+\/?$/,
    must("must be http://host:port or https://host:port, without a login: everybody can read it"),
  );

/** How guests that pull images themselves reach registries; the key of what is a secret is credentials. */
export const guestRegistry = z.strictObject({
  proxy: z
    .strictObject({
      https: proxyAddress.optional().describe("For registries that are reached by https."),
      http: proxyAddress.optional().describe("For registries that are reached by http."),
      noProxy: guestProxy.shape.noProxy.describe(
        "What is reached without it: names, addresses, networks, separated by commas.",
      ),
    })
    .optional()
    .describe("The proxy by which guests pull images."),
  registries: z
    .record(
      z.string().regex(/^[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?$/, must("must be a registry's host, as images name it")),
      z.strictObject({
        ca: registryCa.optional().describe("Certificates of its authorities in PEM."),
        mirror: z
          .string()
          .regex(/^[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?$/, must("must be host[:port] without a scheme or a path"))
          .optional()
          .describe("host[:port] from which its images are taken."),
      }),
    )
    .optional()
    .describe("By the registry's host: `{ca, mirror}`."),
  credentials: dockerConfiguration
    .optional()
    .describe("For Contrast's guests: content of a .dockerconfigjson with user names and passwords."),
  credentialsUri: z
    .string()
    .regex(/^kbs:\/\/[^/]*\/[^/]+\/[^/]+\/[^/]+$/, must("must be kbs:///<repository>/<type>/<tag>"))
    .optional()
    .describe("For upstream's guests: where their key broker has such a file."),
} satisfies Record<keyof GuestRegistry, z.ZodType>);

export const registrySchema = z
  .strictObject({
    prefix: z
      .string()
      .regex(
        new RegExp(`^${registryHost}(/[a-z0-9._-]+)*$`),
        must("must be host[:port][/path] without a scheme, the host with a dot or a port"),
      )
      .optional()
      .describe("Replaces the registry's host in `installerImage`: a mirror in a closed network."),
    ca: registryCa
      .optional()
      .describe(
        "Certificates of the registry's authorities in PEM. Hosts that are reached by SSH are made to trust them for it.",
      ),
    pullSecret: dockerConfiguration
      .optional()
      .describe("Content of a .dockerconfigjson with which nodes pull the image."),
    guest: guestRegistry
      .optional()
      .describe("How guests that pull images themselves reach registries: proxy, authorities, mirrors, logins."),
  })
  .default({})
  .describe(
    "For closed networks: `prefix` (mirror), `ca` (authorities' certificates in PEM, for hosts that are reached by SSH), " +
      "`pullSecret`; `guest`: how guests that pull images themselves reach registries.",
  );
