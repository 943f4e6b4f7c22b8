import { reportServing } from "../kubernetes/reporter.ts";
import type { Attempt } from "./attempt.ts";
import { cleanUp } from "./clean-up.ts";
import { sentence } from "./log.ts";
import {
  backUpFile,
  checkHost,
  cordon,
  placePayloads,
  takeTicket,
  validateCandidate,
  writeKataConfigurations,
} from "./prepare.ts";
import { type StepName, stepNames } from "./step-names.ts";
import { commit, editFile, passGates, recordCommit, restartDaemon } from "./transaction.ts";
import { undo } from "./undo.ts";

/** A part of the sequence. The plan says whether it is needed. */
export interface Step {
  needed: (attempt: Attempt) => boolean;
  apply: (attempt: Attempt) => Promise<void>;
  /** Undoes what `apply` did, and what the earlier steps with an `undo` did. */
  undo?: (attempt: Attempt, reason: unknown, step: StepName) => Promise<never>;
}

const always = () => true;
const changesDaemon = ({ plan }: Attempt) => plan.edit || plan.restart;

/**
 * The one sequence. All handlers of a node go through it together: one edit, one restart. What can be refused is refused
 * before `place-payload`, which may copy gigabytes. Before `edit` nothing that exists is touched; from `edit` to `commit` the guard stands by; the later steps can be repeated.
 */
export const steps: Record<StepName, Step> = {
  "check-host": { needed: always, apply: checkHost },
  validate: { needed: changesDaemon, apply: validateCandidate },
  "place-payload": { needed: ({ plan }) => plan.payloads.length > 0, apply: placePayloads },
  "write-kata-configuration": {
    needed: ({ plan }) => plan.kataConfigurations.length > 0 || plan.guestRegistries.length > 0,
    apply: writeKataConfigurations,
  },
  "take-ticket": { needed: changesDaemon, apply: takeTicket },
  cordon: { needed: ({ plan }) => plan.removed.length > 0, apply: cordon },
  "back-up": { needed: ({ plan, observation }) => plan.edit && observation.edited !== undefined, apply: backUpFile },
  edit: { needed: changesDaemon, apply: editFile, undo },
  restart: { needed: ({ plan }) => plan.restart, apply: restartDaemon, undo },
  gate: { needed: changesDaemon, apply: passGates, undo },
  commit: { needed: ({ journal }) => journal.transaction !== undefined, apply: commit, undo },
  record: { needed: always, apply: recordCommit },
  "clean-up": { needed: always, apply: cleanUp },
};

/**
 * Runs the steps that are needed. A failure from `edit` to `commit` is undone and thrown as `RolledBack`, `RollbackFailed`,
 * or `FileChanged` if another program was quicker; any other is thrown as it is.
 */
export async function runSteps(attempt: Attempt, from: StepName = "check-host"): Promise<void> {
  const { host, log, cluster, specHash } = attempt.environment;
  for (const name of stepNames.slice(stepNames.indexOf(from))) {
    const step = steps[name];
    if (!step.needed(attempt)) continue;
    const started = host.uptime();
    reportServing(cluster.reporter, { state: "working", code: name, reason: `Running step ${name}.`, specHash });
    try {
      await step.apply(attempt);
    } catch (error) {
      log.error("step-failed", { step: name, reason: sentence(error) });
      await step.undo?.(attempt, error, name);
      throw error;
    }
    const milliseconds = Math.round(host.uptime() - started);
    cluster.metrics.stepSeconds[name] = milliseconds / 1000;
    log.info("step", { step: name, milliseconds });
  }
}
