/** How Azure's API answers a request for an agent pool, as far as its published client describes the API. */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import * as arm from "@azure/arm-containerservice";
import type { Failure } from "../plugin.ts";
import { isObject, type Properties, pathText, unknown, type Value } from "../values.ts";

interface Serializers {
  agentPoolDeserializer(wire: unknown): unknown;
  agentPoolSerializer(model: unknown): { properties?: Properties };
}

// The client does not export the functions that parse and serialize its requests.
const require = createRequire(import.meta.url);
const client = dirname(require.resolve("@azure/arm-containerservice/package.json"));
const { agentPoolDeserializer, agentPoolSerializer } = (await import(
  join(client, "dist", "esm", "models", "models.js")
)) as Serializers;

const enums: Record<string, Record<string, string>> = {
  gpuInstanceProfile: arm.KnownGPUInstanceProfile,
  kubeletDiskType: arm.KnownKubeletDiskType,
  mode: arm.KnownAgentPoolMode,
  osDiskType: arm.KnownOSDiskType,
  osSKU: arm.KnownOssku,
  osType: arm.KnownOSType,
  scaleDownMode: arm.KnownScaleDownMode,
  scaleSetEvictionPolicy: arm.KnownScaleSetEvictionPolicy,
  scaleSetPriority: arm.KnownScaleSetPriority,
  type: arm.KnownAgentPoolType,
  workloadRuntime: arm.KnownWorkloadRuntime,
};

/** In no published enumeration, but the API accepted it as long as the service was offered. */
const unpublished: Record<string, string[]> = { workloadRuntime: ["KataCcIsolation"] };

/** Properties that are in the URL, not in the body. */
const inUrl = ["resourceGroupName", "resourceName", "agentPoolName"];

/** Finds unknown properties at any depth, values that the API does not know, and a name that it refuses. */
export function agentPoolFailures(inputs: Properties): Failure[] {
  const body = Object.fromEntries(Object.entries(inputs).filter(([key]) => !inUrl.includes(key)));
  const failures: Failure[] = [];
  const understood = agentPoolSerializer(agentPoolDeserializer({ properties: body })).properties ?? {};
  lost([], body, understood, (path) =>
    failures.push({ property: path, reason: "is not a property of Microsoft.ContainerService agent pools" }),
  );
  for (const [property, values] of Object.entries(enums)) {
    const value = body[property];
    const allowed = [...Object.values(values), ...(unpublished[property] ?? [])];
    if (typeof value !== "string" || value === unknown || allowed.includes(value)) continue;
    failures.push({ property, reason: `"${value}" is not one of ${allowed.join(", ")}` });
  }
  const name = inputs.agentPoolName;
  const pattern = inputs.osType === "Windows" ? /^[a-z][a-z0-9]{0,5}$/ : /^[a-z][a-z0-9]{0,11}$/;
  if (typeof name === "string" && name !== unknown && !pattern.test(name))
    failures.push({ property: "agentPoolName", reason: `"${name}" does not match ${pattern}` });
  return failures;
}

/** The members that are lost when the client parses and serializes the value. */
function lost(path: (string | number)[], sent: Value, kept: Value | undefined, report: (path: string) => void): void {
  if (kept === undefined || kept === null) report(pathText(path));
  else if (Array.isArray(sent))
    for (const [i, item] of sent.entries()) lost([...path, i], item, Array.isArray(kept) ? kept[i] : undefined, report);
  else if (isObject(sent))
    for (const [key, item] of Object.entries(sent))
      lost([...path, key], item, isObject(kept) ? kept[key] : undefined, report);
}
