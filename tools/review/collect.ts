import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { count } from "../../review/text.ts";
import { collectBundles } from "../fleet/bundles.ts";
import { connect } from "../fleet/client.ts";
import { exitCodes } from "../process/exit-codes.ts";

/** Fetches the nodes' bundles; returns the exit code. */
export async function collect(output: string, namespace: string): Promise<number> {
  let [taken, missed] = [0, 0];
  await collectBundles(await connect(process.env), namespace, async ({ group, node, bundle, problem }) => {
    if (bundle === undefined) {
      missed += 1;
      console.error(`No bundle of node ${node} (group ${group}): ${problem}`);
      return;
    }
    await mkdir(join(output, group), { recursive: true });
    await writeFile(join(output, group, `${node}.json`), bundle, { mode: 0o600 });
    taken += 1;
  });
  console.log(`${count(taken, "bundle")} in ${output}.`);
  return missed === 0 ? exitCodes.done : exitCodes.failed;
}
