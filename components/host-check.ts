import { readFileSync } from "node:fs";
import { tablesFor } from "../node-installer/requirements/check-host.ts";
import { cpuGenerations } from "../node-installer/requirements/cpu-generations.ts";
import { replaceableScript } from "../node-installer/requirements/replaceable.ts";
import { type Check, sentence, type Table, word } from "../node-installer/requirements/table.ts";
import { distributions } from "../runtime/distributions.ts";
import { quote } from "../runtime/shell.ts";
import type { DistributionName, HostRequirements } from "../runtime/spec.ts";

const functions = readFileSync(new URL("host-check.sh", import.meta.url), "utf8");

/**
 * The check of a host over SSH: the installer's own tables, as a script. Changes nothing; prints each problem on a line of
 * its own, in the installer's words, and fails if one of them is an error.
 */
export function checkScript(host: HostRequirements, distribution: DistributionName): string {
  const generations = cpuGenerations.map(({ vendor, family, models, tee, name }) =>
    [vendor, family, ...models, tee, name].join(" "),
  );
  return `set -- ${quote(generations.join("\n"))}
${functions}
${[...tablesFor(host).map(tableLines), ...fileLines(distribution)].join("\n")}
[ -z "$failed" ] || exit 1
echo "host can start guests of this kind"
`;
}

/** Only where the unit starts containerd with the usual file is that known before the distribution runs. */
const fileLines = (distribution: DistributionName): string[] => {
  const { edited } = distributions[distribution];
  return edited.kind === "root" ? [replaceableScript(edited.file)] : [];
};

const tableLines = (table: Table): string =>
  ["found=", ...table.map((stage) => `if [ -z "$found" ]; then\n${stage.map(checkLine).join("\n")}\nfi`)].join("\n");

const checkLine = (check: Check): string => {
  const pieces = sentence(check).map((piece, place) => (place % 2 === 0 ? quote(piece) : `"${word(piece).sh}"`));
  return `  ${check.wanted.sh} || ${check.severity ?? "error"} ${pieces.join("")}`;
};
