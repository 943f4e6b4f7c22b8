import * as pulumi from "@pulumi/pulumi";
import * as z from "zod";
import { check, type Mistake } from "./config/mistakes.ts";

/*
 * Components check their arguments by the schemas of the stack's configuration: plain values at once, before anything is
 * registered; an Input that is known later when it is known. Each component has a schema beside its arguments' type.
 */

/** A schema for each of the type's keys: one that the type gains has to be added, or nothing compiles. */
export type Shape<Args> = Record<keyof Args, z.ZodType>;

/**
 * Wrong arguments, for whoever wants to know the properties. The engine shows the message alone, without a stack, as it
 * does for every RunError.
 */
export class WrongArguments extends pulumi.InputPropertiesError {
  /** What pulumi.RunError.isInstance looks at. */
  readonly __pulumiRunError = true;

  constructor(component: string, mistakes: readonly Mistake[]) {
    const lines = mistakes.map(({ key, message }) => `  ${key || "arguments"}: ${message}`);
    super({
      message: `The arguments of ${component} cannot be used:\n${lines.join("\n")}`,
      errors: mistakes.map(({ key, message }) => ({ propertyPath: key, reason: message })),
    });
  }
}

/** An argument that is known later, in its place among the arguments. */
class Later {
  readonly #component: string;
  readonly #value: unknown;
  readonly path: string;

  constructor(component: string, value: unknown, path: string) {
    this.#component = component;
    this.#value = value;
    this.path = path;
  }

  checked<S extends z.ZodType>(schema: S): pulumi.Output<z.output<S>> {
    // Annotated because Pulumi's inferred type, which unwraps what may be inside, says less.
    const value: pulumi.Output<unknown> = pulumi.output(this.#value);
    return value.apply((known) => judged(this.#component, check(schema, known, this.path)));
  }
}

/** No type of an argument has an output of undefined. */
type InputOf<T> = pulumi.Input<Exclude<T, undefined>> | Extract<T, undefined>;

/** An argument that may be an Input: what the schema makes of it, now or later. */
export const input = <S extends z.ZodType>(schema: S) =>
  z
    .unknown()
    .optional()
    .transform((value, { issues }): InputOf<z.output<S>> => {
      if (value instanceof Later) return value.checked(schema) as InputOf<z.output<S>>;
      const parsed = schema.safeParse(value);
      if (parsed.success) return parsed.data as InputOf<z.output<S>>;
      issues.push(...parsed.error.issues.map((issue) => ({ ...issue, input: value }) as z.core.$ZodRawIssue));
      return z.NEVER;
    })
    .meta({ judgedBy: schema });

/** The same keys, each for an Input. */
export const inputs = <S extends Record<string, z.ZodType>>(shape: S) =>
  Object.fromEntries(Object.entries(shape).map(([key, schema]) => [key, input(schema)])) as {
    [K in keyof S]: ReturnType<typeof input<S[K]>>;
  };

/**
 * Applies at once where everything in the value is known, so that what is plain stays plain.
 *
 * @param value checked already: nothing in it is a Promise that may fail unseen
 */
export const applied = <T, R>(value: pulumi.Input<T>, make: (known: pulumi.Unwrap<T>) => R): pulumi.Input<R> =>
  isKnown(value) ? make(value) : pulumi.output(value).apply(make);

/** The value, if everything in it is known. */
export const known = <T>(value: pulumi.Input<T>): pulumi.Unwrap<T> | undefined => (isKnown(value) ? value : undefined);

function isKnown<T>(value: pulumi.Input<T>): value is pulumi.Input<T> & pulumi.Unwrap<T> {
  let known = true;
  setAside(value, "", () => {
    known = false;
  });
  return known;
}

/**
 * The arguments with what the schema makes of them: defaults filled in, Inputs that are known later still to be checked.
 *
 * @param component as messages name it, such as "NodeInstaller workers"
 * @throws WrongArguments with every mistake
 */
export function checkArguments<S extends z.ZodType>(component: string, schema: S, args: unknown): z.output<S> {
  const later = new Set<string>();
  const waiting = setAside(args, "", (value, path) => {
    later.add(path);
    return new Later(component, value, path);
  });
  const { mistakes, ...result } = check(schema, waiting, "");
  return judged(component, {
    ...result,
    mistakes: mistakes.map(({ key, message }) => ({
      key,
      message: later.has(key)
        ? "is an output, but must be a plain value: names, numbers or texts that are needed at once depend on it."
        : message,
    })),
  });
}

function judged<Value>(component: string, { value, mistakes }: { value?: Value; mistakes: Mistake[] }): Value {
  if (mistakes.length > 0) throw new WrongArguments(component, mistakes);
  return value as Value;
}

/** A copy in which whatever is known later is replaced. */
function setAside(value: unknown, path: string, replace: (value: unknown, path: string) => unknown): unknown {
  if (pulumi.Output.isInstance(value) || value instanceof Promise) return replace(value, path);
  if (Array.isArray(value)) return value.map((item, i) => setAside(item, `${path}[${i}]`, replace));
  if (typeof value !== "object" || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, part]) => [key, setAside(part, path ? `${path}.${key}` : key, replace)]),
  );
}
