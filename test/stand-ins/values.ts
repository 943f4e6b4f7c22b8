/**
 * Property values as engine and plugin exchange them: JSON in which a secret is an object with a signature, and an unknown
 * value is a string that nothing else uses.
 */
export type Value = null | boolean | number | string | Value[] | { [key: string]: Value };
export type Properties = { [key: string]: Value };

const signatureKey = "4dabf18193072939515e22adb298388d";
const secretSignature = "1b47061264138c4ac30d75fd1eb44270";
export const unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";

export const isObject = (value: Value | undefined): value is Properties =>
  typeof value === "object" && value !== null && !Array.isArray(value);

export const secret = (value: Value): Value =>
  isSecret(value) ? value : { [signatureKey]: secretSignature, value: value };

export const isSecret = (value: Value | undefined): boolean =>
  isObject(value) && value[signatureKey] === secretSignature;

/** The value with all secrets unwrapped, at every depth. */
export function reveal(value: Value): Value {
  if (Array.isArray(value)) return value.map(reveal);
  if (!isObject(value)) return value;
  if (isSecret(value)) return reveal(value.value ?? null);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, reveal(item)]));
}

export const revealed = (properties: Properties): Properties => reveal(properties) as Properties;

const contains = (value: Value | undefined, test: (value: Value) => boolean): boolean => {
  if (value === undefined) return false;
  if (test(value)) return true;
  const items = Array.isArray(value) ? value : isObject(value) ? Object.values(value) : [];
  return items.some((item) => contains(item, test));
};

export const containsSecret = (value: Value | undefined): boolean => contains(value, isSecret);
export const containsUnknown = (value: Value | undefined): boolean => contains(value, (item) => item === unknown);

/** Null and undefined members are not sent: to every provider, an absent property and a null one are the same. */
export function withoutNulls(value: Value): Value {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (!isObject(value)) return value;
  const present = Object.entries(value).filter(([, item]) => item !== null && item !== undefined);
  return Object.fromEntries(present.map(([key, item]) => [key, withoutNulls(item)]));
}

/**
 * Marks as secret what the inputs mark, and no more: objects member by member, everything else that contains a secret as a
 * whole.
 */
export function markSecrets(outputs: Properties, inputs: Properties): Properties {
  const marked: Properties = { ...outputs };
  for (const [key, input] of Object.entries(inputs)) {
    const output = outputs[key];
    if (output === undefined || isSecret(output)) continue;
    if (isObject(output) && isObject(input) && !isSecret(input)) marked[key] = markSecrets(output, input);
    else if (containsSecret(input)) marked[key] = secret(output);
  }
  return marked;
}

export function equal(a: Value | undefined, b: Value | undefined): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((item, i) => equal(item, b[i]));
  if (!isObject(a) || !isObject(b)) return false;
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...keys].every((key) => equal(a[key], b[key]));
}

/** A property path as the engine writes it: `spec.ports[0]["a.b"]`. */
export function pathText(path: (string | number)[]): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === "number") return `${text}[${part}]`;
    if (/[."[\]]/.test(part)) return `${text}["${part.replaceAll('"', '\\"')}"]`;
    return text === "" ? part : `${text}.${part}`;
  }, "");
}
