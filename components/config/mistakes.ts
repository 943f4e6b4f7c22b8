import * as z from "zod";
import { nearest } from "../../runtime/nearest.ts";

/** One mistake of a user: where, and what is wrong. */
export interface Mistake {
  key: string;
  message: string;
  /** Only on a secret that is not there. */
  missingSecret?: true;
}

/**
 * Checks a value against its schema: the parsed value, or every mistake with value, what is allowed, and the nearest match.
 *
 * @param encrypted whether parts of the value are encrypted: text in place of a map may then be a secret that belongs in it
 */
export function check<S extends z.ZodType>(
  schema: S,
  value: unknown,
  key: string,
  encrypted = false,
): { value?: z.output<S>; mistakes: Mistake[] } {
  const result = schema.safeParse(value);
  if (result.success) return { value: result.data, mistakes: [] };
  return { mistakes: result.error.issues.flatMap((issue) => explain(schema, issue, value, key, encrypted)) };
}

/** "is not a known key" with the keys that are. */
export function unknownKey(key: string, allowed: readonly string[]): string {
  return `is not a known key. Allowed here: ${allowed.join(", ")}.${suggestion(key, allowed, (name) => name)}`;
}

type Issue = z.core.$ZodIssue;

function explain(schema: z.ZodType, issue: Issue, root: unknown, rootKey: string, encrypted: boolean): Mistake[] {
  const key = joinPath(rootKey, issue.path);
  const value = valueAt(root, issue.path);
  const at = schemaAt(schema, issue.path, root);
  if (issue.code === "unrecognized_keys") {
    const allowed = at instanceof z.ZodObject ? Object.keys(at.shape) : [];
    return issue.keys.map((name) => ({ key: joinPath(key, [name]), message: unknownKey(name, allowed) }));
  }
  if (issue.code === "invalid_key")
    return issue.issues.flatMap((inner) => ({ key, message: `${show(issue.path.at(-1))} ${inner.message}.` }));
  const allowed = allowedValues(issue);
  const hidden = (at && isSecret(at)) || (encrypted && expectsParts(issue)) || holdsKey(value);
  const shown = hidden ? "[secret]" : show(value);
  const wanted = allowed ? oneOf(allowed) : `Expected ${(at && said(at)) ?? expected(issue)}.`;
  // YAML's `key:` with nothing after it is null.
  if (value === undefined || value === null)
    return [
      {
        key,
        message: `is ${value === null ? "empty" : "missing"}. ${wanted}`,
        ...(at && isSecret(at) && { missingSecret: true }),
      },
    ];
  if (allowed) {
    const advice =
      typeof value === "string" ? (notAmong(at, value) ?? suggestion(inOtherWords(at, value), allowed, show)) : "";
    return [{ key, message: `${shown} is not allowed. ${wanted}${advice}` }];
  }
  if (issue.code === "invalid_type") return [{ key, message: `${shown} is not allowed. ${wanted}` }];
  return [{ key, message: `${shown} ${issue.message}.` }];
}

/** A private key, or a login in an address, that was put in the wrong place is no less secret there. */
const holdsKey = (value: unknown): boolean =>
  typeof value === "string" && (value.includes("PRIVATE KEY-----") || /:\/\/[^/@\s]*@/.test(value));

const expectsParts = (issue: Issue): boolean =>
  issue.code === "invalid_type" && ["object", "array", "record"].includes(issue.expected);

function allowedValues(issue: Issue): string[] | undefined {
  if (issue.code === "invalid_value") return issue.values.map(String);
  if (issue.code === "invalid_union" && "options" in issue) return (issue.options as unknown[]).map(String);
  return undefined;
}

const oneOf = (allowed: string[]): string => `Allowed: ${allowed.join(", ")}.`;

function expected(issue: Issue): string {
  if (issue.code !== "invalid_type") return "another value";
  const names: Record<string, string> = {
    string: "a string",
    number: "a number",
    int: "a whole number",
    boolean: "true or false",
    array: "a list",
    object: "a map of keys",
    record: "a map of names",
  };
  return names[issue.expected] ?? issue.expected;
}

const suggestion = (word: string, candidates: readonly string[], show: (name: string) => string): string => {
  const match = nearest(word, candidates);
  return match === undefined ? "" : ` Did you mean ${show(match)}?`;
};

const show = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 120 ? `${text.slice(0, 117)}…` : text;
};

function joinPath(key: string, path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (all, part) => (typeof part === "number" ? `${all}[${part}]` : all ? `${all}.${String(part)}` : String(part)),
    key,
  );
}

const valueAt = (root: unknown, path: readonly PropertyKey[]): unknown =>
  path.reduce<unknown>(
    (value, part) => (typeof value === "object" && value !== null ? Reflect.get(value, part) : undefined),
    root,
  );

/** The schema that judged the value at this path, unwrapped; needed to say what is allowed there. */
function schemaAt(schema: z.ZodType, path: readonly PropertyKey[], value: unknown): z.ZodType | undefined {
  const inner = unwrap(schema);
  if (inner instanceof z.ZodDiscriminatedUnion) {
    const options = inner.options as z.ZodType[];
    const option = options.find(
      (option) => option instanceof z.ZodObject && matches(option, inner.def.discriminator, value),
    );
    if (option) return schemaAt(option, path, value);
    return path.length === 0 ? inner : undefined;
  }
  const [part, ...rest] = path;
  if (part === undefined) return inner;
  const next = valueAt(value, [part]);
  if (inner instanceof z.ZodObject) {
    const child: z.ZodType | undefined = inner.shape[part as string];
    return child && schemaAt(child, rest, next);
  }
  if (inner instanceof z.ZodRecord) return schemaAt(inner.valueType as z.ZodType, rest, next);
  if (inner instanceof z.ZodArray) return schemaAt(inner.element as z.ZodType, rest, next);
  return undefined;
}

const matches = (option: z.ZodObject, discriminator: string, value: unknown): boolean => {
  const literal = option.shape[discriminator];
  return literal instanceof z.ZodLiteral && literal.value === valueAt(value, [discriminator]);
};

function unwrap(schema: z.ZodType): z.ZodType {
  const judge = schema.meta()?.judgedBy;
  if (judge instanceof z.ZodType) return unwrap(judge);
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault) return unwrap(schema.unwrap() as z.ZodType);
  if (schema instanceof z.ZodPipe) return unwrap(schema.out as z.ZodType);
  return schema;
}

/** What somebody most likely means by a word that the schema does not take, and knows. */
const inOtherWords = (schema: z.ZodType | undefined, word: string): string => {
  const { otherWords } = schema?.meta() ?? {};
  return z.record(z.string(), z.string()).safeParse(otherWords).data?.[word] ?? word;
};

/** A sentence about a value that people may well try, and to which none of the allowed ones is near in more than letters. */
const notAmong = (schema: z.ZodType | undefined, word: string): string | undefined => {
  const { notAmong: sentences } = schema?.meta() ?? {};
  const sentence = z.record(z.string(), z.string()).safeParse(sentences).data?.[word];
  return sentence && ` ${sentence}`;
};

/** What the schema itself says of the values that it takes. */
const said = (schema: z.ZodType): string | undefined => {
  const text = schema.meta()?.expected;
  return typeof text === "string" ? text : undefined;
};

const isSecret = (schema: z.ZodType): boolean => schema.meta()?.secret === true;

/** Every path below a value whose schema is marked as secret. */
export function secretPaths(schema: z.ZodType, value: unknown, key: string): string[] {
  const inner = unwrap(schema);
  if (isSecret(inner)) return value === undefined ? [] : [key];
  if (inner instanceof z.ZodDiscriminatedUnion) {
    const option = schemaAt(inner, [], value);
    return option && option !== inner ? secretPaths(option, value, key) : [];
  }
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([name, child]) => {
    const part = Array.isArray(value) ? Number(name) : name;
    const childSchema = schemaAt(inner, [part], value);
    return childSchema ? secretPaths(childSchema, child, joinPath(key, [part])) : [];
  });
}
