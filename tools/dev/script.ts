import { Refusal } from "../../runtime/refusal.ts";

/** Runs an npm script's body and sets the exit code: 1 for a refusal, whose sentence is printed. Other errors are thrown. */
export async function runScript(body: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await body();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
}
