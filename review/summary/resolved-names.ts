import * as z from "zod";
import { isChild, runtimeClassesCard } from "../../runtime/cards.ts";
import type { Inputs } from "../preview/inputs.ts";
import type { Preview } from "../preview/preview.ts";
import { code } from "../text.ts";
import { claim, known, predicted, type Told } from "./line.ts";

/** To which handler a name is resolved when a pod is admitted, and what a switch means for pods. */
export const resolutionLines = ({ steps, manifests }: Preview): Told[] =>
  steps.flatMap((step): Told[] => {
    const tooEarly = manifests === undefined ? "an update that is too early" : code("contrast-runtime status");
    if (step.type !== mutatingPolicyType || !isChild(step.urn, runtimeClassesCard)) return [];
    const [before, after] = [resolution(step.before), resolution(step.after)];
    if (after === undefined) {
      if (before === undefined || step.after !== undefined) return [];
      const text = `Pods that say ${code(before.name)} are refused from now on; running ones keep ${code(before.handler)}.`;
      return [claim(known(text), step, ["(delete)"])];
    }
    const given = `New pods that say ${code(after.name)} get ${code(after.handler)} from now on`;
    if (before === undefined) return step.before === undefined ? [claim(known(`${given}.`), step, ["(create)"])] : [];
    if (before.handler === after.handler) return [];
    return [
      claim(known(`${given}, instead of ${code(before.handler)}.`), step, ["spec.variables[0].expression"]),
      predicted(
        `Running pods keep ${code(before.handler)}, also when they start again on their node. ` +
          `Roll the workloads, then remove its runtime: ${tooEarly} names the pods that still use it.`,
      ),
    ];
  });

export const mutatingPolicyType = "kubernetes:admissionregistration.k8s.io/v1:MutatingAdmissionPolicy";

/** As `classResolution` in components/manifests writes it. */
function resolution(inputs: Inputs | undefined): { name: string; handler: string } | undefined {
  const { metadata, spec } = schema.safeParse(inputs).data ?? {};
  const handler = /^'([a-z0-9-]+)'$/.exec(spec?.variables[0].expression ?? "")?.[1];
  return metadata === undefined || handler === undefined ? undefined : { name: metadata.name, handler };
}

const variable = z.object({ name: z.literal("handler"), expression: z.string() });
const schema = z.object({
  metadata: z.object({ name: z.string() }),
  spec: z.object({ variables: z.tuple([variable]) }),
});
