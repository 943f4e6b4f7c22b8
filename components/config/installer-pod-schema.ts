import * as z from "zod";
import { installerLabels } from "../../runtime/names.ts";
import { amount } from "../../workload/sizing.ts";
import { defaults } from "./defaults.ts";
import { labelKey, labels } from "./kubernetes-names.ts";
import { cpu, memory } from "./runtime-schema.ts";

/* What a cluster's rules (quotas, policies, injectors, cost reports) want of the installers' pods. */

const must = (error: string) => ({ error });

/** By these the DaemonSet and the commands find the pods. */
const ownLabels = Object.keys(installerLabels(""));

const resources = z.strictObject({ cpu: cpu.optional(), memory: memory.optional() });

export const installerPod = z
  .strictObject({
    labels: labels
      .refine((given) => !ownLabels.some((key) => key in given), must(`must not set ${ownLabels.join(" and ")}`))
      .default({})
      .describe("Labels of the pods, beside their own."),
    annotations: z
      .record(z.string().regex(labelKey, must("must be a valid annotation key")), z.string())
      .default({})
      .describe("Annotations of the pods."),
    requests: resources
      .default({})
      .describe(
        `What the installer's container requests, \`cpu\` and \`memory\`; ${defaults.installerCpu} and ${defaults.installerMemory} by default.`,
      ),
    limits: resources
      .default({})
      .describe(
        "What it may use, the same keys. By default without limits: the page cache of payloads that are copied counts as memory.",
      ),
  })
  .superRefine((given, { addIssue }) => {
    const { requests } = resourcesOf(given);
    for (const key of ["cpu", "memory"] as const) {
      const [least, most] = [amount(requests[key]), amount(given.limits[key] ?? "")];
      if (least !== undefined && most !== undefined && most < least)
        addIssue({
          code: "custom",
          path: ["limits", key],
          message: `is less than what the container requests, ${requests[key]}: its pods would be refused. Allow more, or set requests.${key}`,
        });
    }
  });

/** The resources of the installer's container, as Kubernetes has them. */
export function resourcesOf({ requests, limits }: Pick<z.output<typeof installerPod>, "requests" | "limits">) {
  return {
    requests: {
      cpu: requests.cpu ?? defaults.installerCpu,
      memory: requests.memory ?? defaults.installerMemory,
    },
    ...(Object.keys(limits).length > 0 && { limits: ofKnown(limits) }),
  };
}

const ofKnown = (amounts: z.output<typeof resources>): Record<string, string> =>
  Object.fromEntries(Object.entries(amounts).filter((entry): entry is [string, string] => entry[1] !== undefined));
