import { Refusal } from "../node-installer/runtime/refusal.ts";

/** Runs an npm script's body and sets the exit code: a refusal is its sentence and 1, any other error keeps its stack. */
export async function runScript(body: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await body();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
}
