import { canonicalJson, sha256 } from "../../runtime/canonical.ts";
import type { Preview } from "../preview/preview.ts";
import type { Step } from "../preview/step.ts";

/** One resource that the engine will change. */
export interface Operation {
  op: string;
  type: string;
  name: string;
  /** Its own URN: the types of all that it is below. */
  urn: string;
  /** URN of its parent. */
  parent?: string;
  /** URN of its provider, and SHA-256 of the provider's inputs like that of its own, where the preview shows them. */
  provider?: string;
  providerInputs?: string;
  /** Property paths that differ; empty where the engine compares no further. */
  changed: string[];
  /** SHA-256 of the planned inputs in canonical JSON, secrets as "[secret]"; absent for what goes. */
  inputs?: string;
}

export function operation(
  { op, urn, type, name, parent, provider, paths, after }: Step,
  { inputsByUrn }: Preview,
): Operation {
  const providerInputs = provider === undefined ? undefined : inputsByUrn.get(provider);
  return {
    op,
    type,
    name,
    urn,
    ...(parent !== undefined && { parent }),
    ...(provider !== undefined && { provider }),
    ...(providerInputs !== undefined && { providerInputs: sha256(canonicalJson(providerInputs)) }),
    changed: paths,
    ...(after !== undefined && { inputs: sha256(canonicalJson(after)) }),
  };
}

export const byTypeAndName = (a: Operation, b: Operation): number => {
  const key = ({ type, name, op, urn, parent, provider }: Operation) =>
    [type, name, op, urn, parent, provider].join(" ");
  const [x, y] = [key(a), key(b)];
  return x < y ? -1 : x > y ? 1 : 0;
};
