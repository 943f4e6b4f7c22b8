import { containerdOn } from "../install/daemon.ts";
import { readSpec } from "../install/read-spec.ts";
import { type Options, openHost } from "./context.ts";
import { exitCodes } from "./exit-codes.ts";

/** Reports what the host lacks for the runtimes of the spec; changes nothing. */
export async function checkHostCommand(options: Options): Promise<number> {
  const { spec } = await readSpec(options.spec);
  const host = openHost(options);
  const daemon = containerdOn(host, spec.distribution);
  const located = await daemon.locate();
  const { hostFindings } = await import("../install/host-findings.ts");
  const { unreplaceable } = await import("../requirements/replaceable.ts");
  const fixed = spec.runtimes.length > 0 ? await unreplaceable(host, located.file) : undefined;
  const findings = [...(fixed === undefined ? [] : [fixed]), ...(await hostFindings(host, located, spec))];
  if (options.json) options.print(`${JSON.stringify({ findings }, null, 2)}\n`);
  else if (findings.length === 0) options.print("This host can run all runtimes in the spec.\n");
  else {
    for (const { severity, code, message } of findings) {
      options.print(`${severity} (${code}): ${message}\n`);
    }
  }
  return findings.some(({ severity }) => severity === "error") ? exitCodes.notAsExpected : 0;
}
