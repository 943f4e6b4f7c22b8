import type { PackageSchema, Property } from "./schema.ts";

/**
 * What of a package's earlier schema programs in other languages relied on, and the later one no longer has: one sentence
 * each.
 */
export function breakingChanges(before: PackageSchema, after: PackageSchema): string[] {
  const broken: string[] = [];
  for (const [token, old] of Object.entries(before.resources)) {
    const now = after.resources[token];
    if (now === undefined) {
      broken.push(`${token} is gone`);
      continue;
    }
    compare(`${token}, argument`, old.inputProperties, now.inputProperties, broken);
    needed(`${token}, argument`, old.requiredInputs, now.requiredInputs, broken);
    compare(`${token}, output`, old.properties, now.properties, broken);
  }
  for (const [token, old] of Object.entries(before.functions)) {
    const now = after.functions[token];
    if (now === undefined) {
      broken.push(`${token} is gone`);
      continue;
    }
    compare(`${token}, argument`, old.inputs.properties, now.inputs.properties, broken);
    needed(`${token}, argument`, old.inputs.required, now.inputs.required, broken);
    compare(`${token}, result`, old.outputs.properties, now.outputs.properties, broken);
  }
  for (const [token, old] of Object.entries(before.types)) {
    const now = after.types[token];
    if (now === undefined) {
      broken.push(`${token} is gone`);
      continue;
    }
    compare(token, old.properties, now.properties, broken);
    if (isGiven(token, before)) needed(token, old.required, now.required, broken);
    for (const { value } of old.enum ?? [])
      if (!now.enum?.some((other) => other.value === value)) broken.push(`${token}: "${value}" is gone`);
  }
  return broken;
}

/** Whether programs give values of the type, and do not only get some. */
function isGiven(token: string, schema: PackageSchema, seen = new Set<string>()): boolean {
  if (seen.has(token)) return false;
  seen.add(token);
  const names = (properties: Properties = {}) => JSON.stringify(properties).includes(`"#/types/${token}"`);
  return (
    Object.values(schema.resources).some(({ inputProperties }) => names(inputProperties)) ||
    Object.values(schema.functions).some(({ inputs }) => names(inputs.properties)) ||
    Object.entries(schema.types).some(([other, { properties }]) => names(properties) && isGiven(other, schema, seen))
  );
}

type Properties = Record<string, Property>;

function compare(owner: string, before: Properties = {}, after: Properties = {}, broken: string[]): void {
  for (const [name, old] of Object.entries(before)) {
    const now = after[name];
    if (now === undefined) broken.push(`${owner} ${name} is gone`);
    else if (typeText(now) !== typeText(old))
      broken.push(`${owner} ${name} was ${typeText(old)} and is ${typeText(now)}`);
  }
}

function needed(owner: string, before: string[] = [], after: string[] = [], broken: string[]): void {
  for (const name of after) if (!before.includes(name)) broken.push(`${owner} ${name} must be given`);
}

/** A type for people: "a list of string", "plain RuntimeArgs". */
export function typeText({ type, $ref, plain, items, additionalProperties }: Property): string {
  const text = items
    ? `a list of ${typeText(items)}`
    : additionalProperties
      ? `a map of ${typeText(additionalProperties)}`
      : ($ref ?? type ?? "").replace(/^.*[:/]/, "");
  return plain && !items ? `plain ${text}` : text;
}
