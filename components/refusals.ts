import * as pulumi from "@pulumi/pulumi";
import { Refusal } from "../runtime/refusal.ts";

/** Refusals are for the user of a component: the engine shows their sentence and no stack. */
export function withoutStack<Result>(act: () => Result): Result {
  try {
    return act();
  } catch (error) {
    throw error instanceof Refusal ? new pulumi.RunError(error.message) : error;
  }
}
