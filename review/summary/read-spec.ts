import * as z from "zod";
import { type InstallSpec, installSpecSchema, type RuntimeSpec } from "../../runtime/spec.ts";
import type { Inputs } from "../preview/inputs.ts";

export const specMapSchema = z.object({ data: z.object({ "spec.json": z.string() }) });

/** The install spec in the inputs of a ConfigMap, where they hold one that this version understands. */
export function readSpec(inputs: Inputs | undefined): InstallSpec | undefined {
  const map = specMapSchema.safeParse(inputs).data;
  if (map === undefined) return undefined;
  try {
    return installSpecSchema.safeParse(JSON.parse(map.data["spec.json"])).data;
  } catch {
    return undefined;
  }
}

export const runtimeOf = (spec: InstallSpec | undefined, handler: string): RuntimeSpec | undefined =>
  spec?.runtimes.find((runtime) => runtime.handler === handler);
