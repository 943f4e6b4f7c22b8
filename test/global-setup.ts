import { resolve } from "node:path";
import { installLauncher } from "../tools/engine/launcher.ts";
import { bundleStandIns } from "./bundled-stand-ins.ts";

/**
 * Stacks call the package's bin by its name: in a clone where nothing ran yet it has to be there first. The tests' processes
 * inherit the variable.
 */
export default async function setup(): Promise<void> {
  await installLauncher(resolve(import.meta.dirname, ".."));
  process.env.STAND_INS = await bundleStandIns();
}
