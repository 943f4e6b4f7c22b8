import * as z from "zod";

/**
 * The same schema for documents of other versions: objects may have fields that it does not know, which are kept where
 * they are or dropped, and an enumeration may have grown. Everything else is checked as before: words that decide what is
 * done have to be literals, not enumerations.
 */
export function leniently<Schema extends z.ZodType>(schema: Schema, unknown: "keep" | "drop" = "keep"): Schema {
  // What is rebuilt describes the same values, and more; the type stays that of the known ones.
  return rebuilt(schema, unknown) as Schema;
}

function rebuilt(schema: z.core.$ZodType, unknown: "keep" | "drop"): z.ZodType {
  const inner = (one: z.core.$ZodType) => rebuilt(one, unknown);
  if (schema instanceof z.ZodObject) {
    const shape = Object.fromEntries(Object.entries(schema.shape).map(([key, value]) => [key, inner(value)]));
    return unknown === "keep" ? z.looseObject(shape) : z.object(shape);
  }
  if (schema instanceof z.ZodArray) return z.array(inner(schema.element));
  if (schema instanceof z.ZodOptional) return z.optional(inner(schema.unwrap()));
  if (schema instanceof z.ZodNullable) return z.nullable(inner(schema.unwrap()));
  if (schema instanceof z.ZodEnum) return z.string();
  return schema as z.ZodType;
}
