import * as z from "zod";
import { kataOverrides, type RuntimeSettings } from "../../runtime/kata-overrides.ts";
import { guestProxy } from "../../runtime/kernel-parameters.ts";
import { platformNames } from "../../runtime/spec.ts";
import { defaults } from "./defaults.ts";
import { objectName } from "./kubernetes-names.ts";

/* A runtime of a group in the stack's configuration. */

const must = (error: string) => ({ error });

export const memory = z
  .string()
  .regex(/^\d+(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$/, must('must be an amount of memory such as "512Mi"'));
export const cpu = z.string().regex(/^\d+(\.\d+)?m?$/, must('must be a number of CPUs such as "250m" or "1.5"'));

export const overhead = z.strictObject({
  memory: memory
    .optional()
    .describe("What a pod's VM needs beside its containers. By default the platform's own value."),
  cpu: cpu.optional().describe("The same of CPUs."),
  teeKeys: z
    .boolean()
    .default(defaults.teeKeys)
    .describe("Charges each pod one SNP or TDX key: only where nodes advertise them, or no pod is ever scheduled."),
});

export const classNames = z
  .array(objectName("RuntimeClass"))
  .default([])
  .describe(
    "Further RuntimeClasses of the handler, by name, such as the one that Contrast's own CLI writes into pods.",
  );

export const currentFor = z
  .array(objectName("RuntimeClass"))
  .default([])
  .describe(
    "Names that new pods may say instead of the handler's own, which is written in their place when they are admitted. Needs Kubernetes 1.36.",
  );

/** What a runtime sets beyond platform and payload. */
export const runtimeSettings = {
  kata: kataOverrides
    .optional()
    .describe(
      "Further keys of Kata's configuration, by table: `hypervisor`, `agent`, `runtime`. Checked against what this Kata knows.",
    ),
  debug: z
    .boolean()
    .default(defaults.debug)
    .describe("Kata logs everything on the host. What is measured stays the same; the handler's name says `debug`."),
  guestProxy: z
    .strictObject(guestProxy.shape)
    .optional()
    .describe(
      "For guests of upstream Kata: the proxy of everything in the guest, on the measured kernel command line.",
    ),
  acknowledgedWeakenings: z
    .array(z.string())
    .default([])
    .describe(
      "Keys below `kata` that weaken the guest and are wanted all the same; the handler's name says `insecure`.",
    ),
} satisfies Record<keyof RuntimeSettings, z.ZodType>;

export const runtime = z.strictObject({
  platform: z.enum(platformNames).describe("Virtual machine monitor, TEE and place; see docs/configuration.md."),
  payload: z
    .string()
    .min(1, must("must be the path of a manifest"))
    .meta({ expected: "the path of a manifest below the project" })
    .describe("Path of the manifest that `npm run lock` wrote, below the project."),
  acknowledgedAdvisories: z
    .array(z.string())
    .default([])
    .describe("Known holes of the payload's Kata that are put up with, by GHSA or CVE id."),
  overhead: overhead.optional().describe("What the RuntimeClass adds to each pod. By default the platform's own."),
  classNames,
  currentFor,
  ...runtimeSettings,
});
