import * as pulumi from "@pulumi/pulumi";
import { Refusal } from "../node-installer/runtime/refusal.ts";

/** A refusal is for the user of a component to read: its sentence ends the program, without a stack. */
export function withoutStack<Result>(act: () => Result): Result {
  try {
    return act();
  } catch (error) {
    throw error instanceof Refusal ? new pulumi.RunError(error.message) : error;
  }
}
