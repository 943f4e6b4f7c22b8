import type { Alias } from "@pulumi/pulumi";

/**
 * Children are named after their parent, so that a program may have two of it. Earlier versions did not: the engine finds
 * what their stacks have under the name that it had there. Parents' names are no part of it, because a URN has only their
 * types.
 */
export const formerly = (name: string): Alias[] => [{ name }];
