import type { FleetPlan } from "../fleet-plan/plan.ts";
import type { Preview } from "../preview/preview.ts";
import { attestationLines } from "./attestation.ts";
import { commandLines } from "./commands.ts";
import { groupChanges } from "./groups.ts";
import { specLines } from "./install-specs.ts";
import { Ledger } from "./ledger.ts";
import type { Line, Told } from "./line.ts";
import { manifestLines, unknownBeforeLines } from "./manifests.ts";
import { nodeLines } from "./nodes.ts";
import { byTypeAndName, type Operation, operation } from "./operations.ts";
import { differenceLines, driftLines, pendingDeletionLine, unexplainedLines, unreadLines } from "./resources.ts";
import { restartLines } from "./restarts.ts";
import { runtimeLines } from "./runtimes.ts";
import { securityLines } from "./security.ts";
import { workloadLines } from "./workloads.ts";

export interface Summary {
  project: string;
  stack: string;
  sections: { title: string; lines: Line[] }[];
  /** Sorted by type and name. */
  operations: Operation[];
  errors: string[];
  /** Not part of the canonical form, either: some are about the machine. */
  warnings: string[];
  /** By group; only where bundles of nodes were given. Not part of the canonical form: nodes change by themselves. */
  fleets: FleetPlan[];
  /** What it is of. */
  of: "preview" | "manifests";
}

/** What a preview comes to, in the words of the domain. Pure. */
export function summarize(preview: Preview, fleets: FleetPlan[] = []): Summary {
  const groups = groupChanges(preview);
  const ledger = new Ledger(preview);
  const section = (title: string, lines: Told[]) => ({ title, lines: ledger.enter(lines) });
  const { steps } = preview;
  // In this order, since each tells what those before have left.
  const specs = section("Install specs", specLines(groups, preview, ledger));
  const domain = [
    section("Runtimes", runtimeLines(groups, preview)),
    section("Attestation", attestationLines(groups, preview)),
    section("Workloads", workloadLines(preview)),
    section("Nodes", nodeLines(groups, preview)),
    section("Restarts of containerd", restartLines(groups, preview)),
    section("Security", securityLines(groups, preview, ledger)),
    section("Commands", commandLines(preview, ledger)),
    section("Applying the manifests", manifestLines(groups, preview)),
  ];
  const details = [
    section("Changed from outside", preview.drift.flatMap(driftLines)),
    section("Left behind by an update that failed", preview.pendingDeletions.map(pendingDeletionLine)),
    specs,
    section(
      "Resource by resource",
      steps.flatMap((step) => differenceLines(step, ledger)),
    ),
  ];
  const left = section("Not explained here", [
    ...unknownBeforeLines(preview),
    ...steps.flatMap((step) => [...unexplainedLines(step, ledger), ...unreadLines(step)]),
  ]);
  const sections = [...domain, left, ...details];
  return {
    project: preview.project,
    stack: preview.stack,
    sections: sections.filter(({ lines }) => lines.length > 0),
    operations: [...steps, ...preview.pendingDeletions].map((step) => operation(step, preview)).sort(byTypeAndName),
    errors: preview.errors,
    warnings: [...new Set(preview.warnings)].sort(),
    fleets,
    of: preview.manifests === undefined ? "preview" : "manifests",
  };
}
