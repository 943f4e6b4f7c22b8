import { Refusal } from "../node-installer/runtime/refusal.ts";

/** Runs an npm script's body and sets the exit code. A refusal prints its sentence and exits 1; other errors keep their stack. */
export async function runScript(body: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await body();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
}
