import * as z from "zod";
import { topLevel } from "../../components/config/schema.ts";
import { distributionNames } from "../../runtime/spec.ts";

/*
 * What editors and docs/configuration.md say about the stack file, made from the schemas that check it. `npm run test:unit` compares
 * both with the committed texts; GOLDEN=update writes them.
 */

export const schemaPath = "docs/stack.schema.json";

type Json = Record<string, unknown>;
const isJson = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value);

const secure = { $ref: "#/definitions/secure" };
const encrypted = {
  description: "A value that `pulumi config set --secret --path` encrypted.",
  type: "object",
  properties: { secure: { type: "string" } },
  required: ["secure"],
  additionalProperties: false,
};

/** JSON Schema of the whole file `Pulumi.<stack>.yaml`, of draft 7: the one that every editor understands. */
export function stackFileSchema(): Json {
  const entries = Object.entries(topLevel).map(([key, schema]) => {
    const { description, default: standard, ...shape } = inStackFile(schema);
    // `pulumi config set --secret` without a path encrypts a whole entry.
    const encryptable = Array.isArray(shape.anyOf) ? shape : { anyOf: [shape, secure] };
    return [`contrast-runtime:${key}`, { description, default: standard, ...encryptable }] as const;
  });
  const required = Object.entries(topLevel).flatMap(([key, schema]) =>
    isOptional(schema) ? [] : [`contrast-runtime:${key}`],
  );
  return {
    $schema: "http://json-schema.org/draft-07/schema#",
    title: "Stack file of contrast-runtime",
    description:
      "What `Pulumi.<stack>.yaml` may hold. The program checks more: what concerns several keys, and manifests.",
    type: "object",
    properties: {
      config: {
        description: "The stack's configuration: each key with the project's or another package's name before it.",
        type: "object",
        properties: Object.fromEntries(entries),
        patternProperties: { "^(?!contrast-runtime:)[^:]+:.+$": { description: "Of another package." } },
        additionalProperties: false,
      },
      encryptionsalt: { description: "Written by Pulumi: of the passphrase.", type: "string" },
      encryptedkey: {
        description: "Written by Pulumi: the stack's key, encrypted by `secretsprovider`.",
        type: "string",
      },
      secretsprovider: { description: "Written by Pulumi: what encrypts the stack's secrets.", type: "string" },
      environment: {
        description: "Pulumi ESC: environments that add to the configuration.",
        anyOf: [{ type: "array", items: { type: "string" } }, { type: "object" }],
      },
    },
    additionalProperties: false,
    // An environment may bring any key.
    anyOf: [
      { required: ["environment"] },
      { required: ["config"], properties: { config: { type: "object", required } } },
    ],
    definitions: { secure: encrypted },
  };
}

/** A row of the tables for each key: its default, and its description. */
export function referenceTable(shape: Record<string, z.ZodType>): string {
  const rows = Object.entries(shape).map(([key, schema]) => {
    const { default: standard, description } = jsonOf(schema);
    return `| \`${key}\` | ${isOptional(schema) ? shown(standard) : "required"} | ${description} |`;
  });
  return ["| key | default | meaning |", "| --- | --- | --- |", ...rows].join("\n");
}

/** A list or map that is not given has nothing in it. */
const shown = (standard: unknown): string =>
  standard === undefined || typeof standard === "object" ? "empty" : `\`${standard}\``;

const isOptional = (schema: z.ZodType): boolean => schema.safeParse(undefined).success;

const jsonOf = (schema: z.ZodType): Json => ({ ...z.toJSONSchema(schema, { target: "draft-7", io: "input" }) });

function inStackFile(schema: z.ZodType): Json {
  const { $schema, ...json } = jsonOf(schema);
  return rewritten(json);
}

/** A schema as it holds in the file, where values may be encrypted and a distribution may be its name alone. */
function rewritten(node: Json): Json {
  const { secret, expected, otherWords, notAmong, description, ...rest } = node;
  const described = description === undefined ? {} : { description };
  // Draft 7 ignores whatever stands beside a reference.
  if (secret === true) return { ...described, allOf: [secure] };
  const children = Object.fromEntries(Object.entries(rest).map(([key, value]) => [key, below(key, value)]));
  const { default: standard, ...shape } = children;
  const outer = { ...described, ...(standard !== undefined && { default: standard }) };
  if (isDistribution(shape)) return { ...outer, anyOf: [{ enum: distributionNames }, shape] };
  if (rest.type === "string" && rest.enum === undefined && rest.const === undefined)
    return { ...outer, anyOf: [shape, secure] };
  return { ...outer, ...shape };
}

/** What stands behind a keyword: schemas, or a plain value such as a default. */
function below(keyword: string, value: unknown): unknown {
  if (keyword === "properties" && isJson(value))
    return Object.fromEntries(
      Object.entries(value).map(([key, child]) => [key, isJson(child) ? rewritten(child) : child]),
    );
  if (["items", "additionalProperties"].includes(keyword) && isJson(value)) return rewritten(value);
  if (["anyOf", "oneOf"].includes(keyword) && Array.isArray(value))
    return value.map((child) => (isJson(child) ? rewritten(child) : child));
  return value;
}

const isDistribution = ({ properties }: Json): boolean => isJson(properties) && "containerdVersion" in properties;
