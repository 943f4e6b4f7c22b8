import { cleanUp } from "./clean-up.ts";
import { sentence } from "./log.ts";
import { backUpFile, checkHost, placePayloads, takeTicket, validate, writeKataConfigurations } from "./prepare.ts";
import { commit, editFile, gate, recordCommit, restart, takeBack } from "./transaction.ts";
import type { Work } from "./work.ts";

/** A part of the sequence. The plan says whether it is needed. */
export interface Step {
  name: string;
  needed: (work: Work) => boolean;
  apply: (work: Work) => Promise<void>;
  /** Undoes what `apply` did, and what the earlier steps with an `undo` did. */
  undo?: (work: Work, reason: unknown, step: string) => Promise<never>;
}

const changesDaemon = ({ plan }: Work) => plan.edit || plan.restart;
const always = () => true;

/**
 * The one sequence. All handlers of a node go through it together: one edit, one restart. Before `edit` nothing that exists
 * is touched; from `edit` to `commit` the guard stands by; the later steps can be repeated.
 */
export const steps: Step[] = [
  { name: "check-host", needed: always, apply: checkHost },
  { name: "place-payload", needed: ({ plan }) => plan.payloads.length > 0, apply: placePayloads },
  {
    name: "write-kata-configuration",
    needed: ({ plan }) => plan.kataConfigurations.length > 0,
    apply: writeKataConfigurations,
  },
  { name: "validate", needed: ({ plan }) => plan.edit, apply: validate },
  { name: "take-ticket", needed: changesDaemon, apply: takeTicket },
  {
    name: "back-up",
    needed: ({ plan, observation }) => plan.edit && observation.edited !== undefined,
    apply: backUpFile,
  },
  { name: "edit", needed: changesDaemon, apply: editFile, undo: takeBack },
  { name: "restart", needed: ({ plan }) => plan.restart, apply: restart, undo: takeBack },
  { name: "gate", needed: changesDaemon, apply: gate, undo: takeBack },
  { name: "commit", needed: ({ journal }) => journal.transaction !== undefined, apply: commit, undo: takeBack },
  { name: "record", needed: always, apply: recordCommit },
  { name: "clean-up", needed: always, apply: cleanUp },
];

/**
 * Runs the steps that are needed. A failure from `edit` to `commit` is rolled back and thrown as `RolledBack`,
 * `RollbackFailed`, or `FileChanged` if another program was quicker; any other is thrown as it is.
 */
export async function runSteps(work: Work, from = "check-host"): Promise<void> {
  const { host, log, cluster, specHash } = work.environment;
  for (const step of steps.slice(steps.findIndex(({ name }) => name === from))) {
    if (!step.needed(work)) continue;
    const started = host.uptime();
    const handlers = cluster.reporter.served();
    const reason = `Running step ${step.name}.`;
    cluster.reporter.report({ state: "working", code: step.name, reason, handlers, pods: [], specHash });
    try {
      await step.apply(work);
    } catch (error) {
      log.error("step-failed", { step: step.name, reason: sentence(error) });
      await step.undo?.(work, error, step.name);
      throw error;
    }
    const milliseconds = Math.round(host.uptime() - started);
    cluster.metrics.stepSeconds[step.name] = milliseconds / 1000;
    log.info("step", { step: step.name, milliseconds });
  }
}
