import type { MeasuredRuntime } from "../measure/runtime.ts";
import { hypervisorAnnotations, initdataAnnotation, policyAnnotation } from "../runtime/annotations.ts";
import { platformOf } from "../runtime/handler.ts";
import { decodeInitdata, type Initdata, parseInitdata } from "./initdata.ts";
import { podTemplateSchema } from "./pod-template.ts";
import { isMadePolicy } from "./policy-of-pod.ts";

/** A template without what an earlier run put there, which is made anew. */
export interface Earlier {
  template: unknown;
  /** What its guests are given besides: files of the user's, and a policy that is not ours. */
  initdata?: Initdata;
  /** The class of another handler, which the pods leave. */
  movedFrom?: string;
}

/**
 * So that output is input again: pods that were made ready for this runtime or for an earlier one are made ready as if for
 * the first time, with the files that they had.
 *
 * @throws Refusal for an annotation that holds no initdata
 */
export function withoutEarlierOutput(
  given: unknown,
  runtime: MeasuredRuntime,
  classNames: readonly string[] = [],
): Earlier {
  const { data: template } = podTemplateSchema.safeParse(given);
  if (template === undefined) return { template: given };
  const { runtimeClassName, ...spec } = template.spec;
  const { annotations = {}, ...metadata } = template.metadata ?? {};
  const isOwnClass = runtimeClassName === undefined || [runtime.spec.handler, ...classNames].includes(runtimeClassName);
  const leaves = !isOwnClass && platformOf(runtimeClassName) !== undefined;

  const { [initdataAnnotation]: _, [policyAnnotation]: __, ...others } = annotations;
  const kept = Object.entries(others).filter(([key]) => !/^snp_(id_|guest_policy)/.test(nameOf(key)));
  const initdata = initdataOf(template);
  return {
    template: {
      ...template,
      metadata: { ...metadata, ...(kept.length > 0 && { annotations: Object.fromEntries(kept) }) },
      spec: { ...spec, ...(runtimeClassName !== undefined && !leaves && { runtimeClassName }) },
    },
    ...(initdata && { initdata: ownFiles(initdata) }),
    ...(leaves && { movedFrom: runtimeClassName }),
  };
}

/** What a template's annotation gives its guests. @throws Refusal for one that holds no initdata */
export function initdataOf(template: unknown): Initdata | undefined {
  const { [initdataAnnotation]: encoded, [policyAnnotation]: policy } =
    podTemplateSchema.safeParse(template).data?.metadata?.annotations ?? {};
  if (encoded !== undefined) return parseInitdata(decodeInitdata(encoded));
  return policy === undefined
    ? undefined
    : { algorithm: "sha256", data: { "policy.rego": Buffer.from(policy, "base64").toString("utf8") } };
}

/** Of Kata's hypervisor annotations. */
const nameOf = (key: string): string =>
  key.startsWith(hypervisorAnnotations) ? key.slice(hypervisorAnnotations.length) : "";

function ownFiles({ algorithm, data }: Initdata): Initdata {
  const { "policy.rego": policy, ...files } = data;
  return policy === undefined || isMadePolicy(policy) ? { algorithm, data: files } : { algorithm, data };
}
