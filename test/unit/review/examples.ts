import { readFileSync } from "node:fs";
import { parse } from "yaml";
import type { DocumentStep } from "./documents.ts";

/** The golden plan of each example as a preview that creates everything. */
export function exampleSteps(name: string): DocumentStep[] {
  const plan = parse(readFileSync(`test/golden/${name}.yaml`, "utf8")) as {
    type: string;
    name: string;
    parent?: string;
    inputs: object;
  }[];
  return plan.map(({ type, name: resource, parent, inputs }) => ({
    op: "create",
    type,
    name: resource,
    ...(parent?.includes(":NodeInstaller ") && { parent: parent.split(" ").at(-1) ?? "" }),
    ...(parent === undefined && { foreign: true }),
    after: asPrinted(inputs) as object,
  }));
}

/** Secrets as the engine prints them. */
function asPrinted(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(asPrinted);
  if (Object.keys(value).join() === "secret") return "[secret]";
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, asPrinted(each)]));
}
