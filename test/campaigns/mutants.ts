import { ofWriting } from "./mutants-of-writing.ts";

export interface Mutant {
  name: string;
  file: string;
  /** Occurs once in the file. */
  text: string;
  by: string;
  tests: string[];
}

const unit = "test/unit/node-installer";
const backup = [`${unit}/install/backup.test.ts`];
const pending = [`${unit}/install/pending.test.ts`];
const restarts = [`${unit}/install/restarts.test.ts`];
const labels = [`${unit}/install/labels.test.ts`];
const breakGlass = ["uninstall", "validation", "rewritten"].map((file) => `${unit}/install/${file}.test.ts`);
/** What test/campaigns/mutations.ts takes out, one after the other: each text must stand exactly once in its file. */
export const mutants: readonly Mutant[] = [
  ...ofWriting,
  {
    name: "changes that nobody loaded are loaded without a word",
    file: "node-installer/install/plan.ts",
    text: "  if (pending.length === 0 || spec.loadPendingChanges) return;",
    by: "  if (pending.length >= 0 || spec.loadPendingChanges) return;",
    tests: pending,
  },
  {
    name: "loadPendingChanges is not asked",
    file: "node-installer/install/plan.ts",
    text: "  if (pending.length === 0 || spec.loadPendingChanges) return;",
    by: "  if (pending.length === 0 || spec.loadPendingChanges === undefined) return;",
    tests: pending,
  },
  {
    name: "nobody looks again after the wait for the ticket",
    file: "node-installer/install/prepare.ts",
    text: "  if (changed !== undefined) throw new FileChanged(",
    by: "  if (changed === null) throw new FileChanged(",
    tests: pending,
  },
  {
    name: "what containerd imports may have changed unseen",
    file: "node-installer/containerd/pending.ts",
    text: "...new Set([file, ...templates, ...agentFiles, ...others])",
    by: "...new Set([file, ...templates, ...agentFiles])",
    tests: pending,
  },
  {
    name: "another template may have been written unseen",
    file: "node-installer/containerd/pending.ts",
    text: "...new Set([file, ...templates, ...agentFiles, ...others])",
    by: "...new Set([file, ...agentFiles, ...others])",
    tests: pending,
  },
  {
    name: "what k3s reads may have changed unseen",
    file: "node-installer/containerd/pending.ts",
    text: "...new Set([file, ...templates, ...agentFiles, ...others])",
    by: "...new Set([file, ...templates, ...others])",
    tests: pending,
  },
  {
    name: "a file with an old time is taken for one that was loaded",
    file: "node-installer/containerd/pending.ts",
    text: "!agentFiles.includes(path) && isAfter(stat.ctimeNs)",
    by: "agentFiles.includes(root) && isAfter(stat.ctimeNs)",
    tests: pending,
  },
  {
    name: "a file that only got another mode or owner is said to be changed",
    file: "node-installer/containerd/pending.ts",
    text: "if (isAfter(stat.mtimeNs))",
    by: "if (isAfter(stat.mtimeNs) || isAfter(stat.ctimeNs))",
    tests: pending,
  },
  {
    name: "a link may lead elsewhere unseen",
    file: "node-installer/containerd/pending.ts",
    text: "madeNs !== undefined && isAfter(madeNs)",
    by: "madeNs !== undefined && isAfter(-madeNs)",
    tests: pending,
  },
  {
    name: "what a snap reads may have changed unseen",
    file: "node-installer/containerd/locate.ts",
    text: "...(started?.wordsFile === undefined ? [] : [started.wordsFile])",
    by: "",
    tests: pending,
  },
  {
    name: "containerd is not asked again after the wait for the ticket",
    file: "node-installer/install/prepare.ts",
    text: "  if (waited || filesToCome(attempt.plan).size > 0) await validate(attempt, new Set());\n",
    by: "",
    tests: pending,
  },
  {
    name: "an upgraded containerd that does not run yet is not pending",
    file: "node-installer/containerd/pending.ts",
    text: 'serves === "" || plain(serves) === plain(version)',
    by: 'serves === "" || plain(serves) !== ""',
    tests: pending,
  },
  {
    name: "the gate expects what the daemon served, not what its files say",
    file: "node-installer/containerd/serving.ts",
    text: "  if (onDisk === undefined) return serving;",
    by: "  if (onDisk === undefined || ours.size >= 0) return serving;",
    tests: pending,
  },
  {
    name: "a restart is not counted",
    file: "node-installer/host/restart-budget.ts",
    text: '    await writeFileAtomically(host, restartsPath, lines.join(""), rootOwned(0o600));\n',
    by: "",
    tests: restarts,
  },
  {
    name: "there is no budget of restarts",
    file: "node-installer/install/restarts.ts",
    text: "  return isNew || (await budgetOf(host)).left >= forChange;",
    by: "  return isNew || (await budgetOf(host)).left >= 0;",
    tests: restarts,
  },
  {
    name: "the budget of restarts is spent to the last, so that a rollback has none",
    file: "node-installer/install/restarts.ts",
    text: "  return isNew || (await budgetOf(host)).left >= forChange;",
    by: "  return isNew || (await budgetOf(host)).left >= 1;",
    tests: restarts,
  },
  {
    name: "who asks again and again has no limit",
    file: "node-installer/host/restart-budget.ts",
    text: "const since = hours === 1 ? askedAt",
    by: "const since = hours >= 1 ? askedAt",
    tests: restarts,
  },
  {
    name: "a rollback that failed is repeated beyond the budget",
    file: "node-installer/install/undo.ts",
    text: 'step !== "recovery" || !(await isSpent(environment))',
    by: 'step !== "recovery" || (await isSpent(environment)) !== undefined',
    tests: restarts,
  },
  {
    name: "a containerd that another program's bytes left without its CRI is restarted beyond the budget",
    file: "node-installer/install/undo.ts",
    text: "    if (!(await isSpent(environment))) await restart(",
    by: "    if ((await isSpent(environment)) !== undefined) await restart(",
    tests: [`${unit}/install/foreign-writers.test.ts`],
  },
  {
    name: "a request for another attempt does not begin a new hour",
    file: "node-installer/install/converge.ts",
    text: "  if (isNews || retry) await allowAnotherHour(environment.host);\n",
    by: "",
    tests: restarts,
  },
  {
    name: "a containerd that is still starting is restarted again",
    file: "node-installer/install/restarts.ts",
    text: "  if (await daemon.isStarting(located).catch(() => false)) {",
    by: "  if ((await daemon.isStarting(located).catch(() => false)) === undefined) {",
    tests: restarts,
  },
  {
    name: "a handler on trial has a label",
    file: "node-installer/install/labelled.ts",
    text: "trial === undefined || trial.handlersBefore.includes(handler)",
    by: "trial === undefined || trial.handlersBefore.length >= 0 || handler === undefined",
    tests: labels,
  },
  {
    name: "a host that lost its TEE keeps its labels",
    file: "node-installer/install/labelled.ts",
    text: "    ...(await unfit(located, [...wanted, ...unknown.flatMap(ofPlatform)])),\n",
    by: "    ...(await unfit(located, wanted)).slice(0, 0),\n",
    tests: labels,
  },
  {
    name: "a host that lost its TEE and its journal keeps its labels",
    file: "node-installer/install/labelled.ts",
    text: "[...wanted, ...unknown.flatMap(ofPlatform)]",
    by: "[...wanted]",
    tests: labels,
  },
  {
    name: "a replaced runtime loses its label before its turn",
    file: "node-installer/install/labelled.ts",
    text: "  const wanted = isComplete ? served",
    by: "  const wanted = isComplete || served.length > 0 ? served",
    tests: labels,
  },
  {
    name: "an unreadable journal takes all labels",
    file: "node-installer/install/labelled.ts",
    text: "journal === undefined && !isComplete ? others",
    by: "journal === undefined && isComplete ? others",
    tests: labels,
  },
  {
    name: "a runtime that goes has its label until after the edit",
    file: "node-installer/install/prepare.ts",
    text: "  await reporter.setServed(reporter.served().filter((handler) => !plan.removed.includes(handler)));\n",
    by: "",
    tests: labels,
  },
  {
    name: "a CRI that is down because of our file is left alone",
    file: "node-installer/install/converge.ts",
    text: "  if (plan.edit && present.length > 0 && !(await daemon.loads(located))) return;\n",
    by: "",
    tests: breakGlass,
  },
  {
    name: "nothing can be uninstalled while the CRI is down",
    file: "node-installer/install/converge.ts",
    text: "  if (serving !== undefined || plan.entries.length === 0) return;\n  refuseIfBlocked",
    by: "  if (serving !== undefined) return;\n  refuseIfBlocked",
    tests: breakGlass,
  },
  {
    name: "without a CRI, running shims do not count as users",
    file: "node-installer/install/plan.ts",
    text: "(observation.serving === undefined ? processesOf(handler) : [])",
    by: "(observation.serving === undefined ? processesOf(handler).slice(0, 0) : [])",
    tests: breakGlass,
  },
  {
    name: "a backup that no journal knows stays",
    file: "node-installer/install/prepare.ts",
    text: "  const adopted = await adoptBackups(host, located.file, own?.backups ?? []);",
    by: "  const adopted: string[] = own === undefined ? [] : await adoptBackups(host, located.file, own.backups);",
    tests: backup,
  },
  {
    name: "another program's bytes are taken for the installer's",
    file: "node-installer/install/transaction.ts",
    text: "  if (!result.ok && (await isOverwritten(attempt)))",
    by: "  if (!result.ok && (await isOverwritten(attempt)) === undefined)",
    tests: [`${unit}/install/foreign-writers.test.ts`],
  },
  {
    name: "recovery waits for the API server",
    file: "node-installer/install/watch-loop.ts",
    text: "        await recoverFirst(environment);\n        // Labels",
    by: "        await token;\n        await recoverFirst(environment);\n        // Labels",
    tests: labels,
  },
];
