export interface Mutant {
  name: string;
  file: string;
  /** Occurs once in the file. */
  text: string;
  by: string;
  tests: string[];
}

const unit = "test/unit/node-installer";
const disk = [`${unit}/host/durability.test.ts`];
const guard = [`${unit}/host/guard.test.ts`];
const arming = [`${unit}/host/arm-guard.test.ts`];
const backup = [`${unit}/install/backup.test.ts`];
const recovery = [`${unit}/install/recover.test.ts`];
const locks = [`${unit}/host/node-host.test.ts`, `${unit}/install/converge.test.ts`];
const pending = [`${unit}/install/pending.test.ts`];
const restarts = [`${unit}/install/restarts.test.ts`];
const labels = [`${unit}/install/labels.test.ts`];
const breakGlass = [`${unit}/install/uninstall.test.ts`, `${unit}/install/validation.test.ts`];

/** What test/campaigns/mutations.ts takes out, one after the other: each text must stand exactly once in its file. */
export const mutants: readonly Mutant[] = [
  {
    name: "a created file is not synced",
    file: "node-installer/host/node-host.ts",
    text: "        await file.sync();\n",
    by: "",
    tests: disk,
  },
  {
    name: "a directory is not synced",
    file: "node-installer/host/node-host.ts",
    text: "        await directory.sync();\n",
    by: "",
    tests: disk,
  },
  {
    name: "a copied payload file is not synced",
    file: "node-installer/host/copy.ts",
    text: "      await file.sync();\n",
    by: "",
    tests: disk,
  },
  {
    name: "what the guard puts in the file's place is not synced",
    file: "node-installer/host/guard.sh",
    text: '  sync "$staged" && [',
    by: "  [",
    tests: guard,
  },
  {
    name: "the name of what the guard put in place is not synced",
    file: "node-installer/host/guard.sh",
    text: 'mv -f "$staged" "$file" && sync "$directory"',
    by: 'mv -f "$staged" "$file"',
    tests: guard,
  },
  {
    name: "the guard's removal of a new file is not synced",
    file: "node-installer/host/guard.sh",
    text: 'rm -f "$file" && sync "$directory"',
    by: 'rm -f "$file"',
    tests: guard,
  },
  {
    name: "the guard's end is not synced",
    file: "node-installer/host/guard.sh",
    text: 'sync "$state"\n',
    by: "",
    tests: guard,
  },
  {
    name: "a replaced file's name is not synced",
    file: "node-installer/host/files.ts",
    text: "was written to by another program`);\n  }\n  await host.syncDirectory(directory);\n",
    by: "was written to by another program`);\n  }\n",
    tests: backup,
  },
  {
    name: "a backup's name is not synced",
    file: "node-installer/install/backup.ts",
    text: "    await host.syncDirectory(posix.dirname(backup));\n",
    by: "",
    tests: backup,
  },
  {
    name: "a backup is not compared with what was written",
    file: "node-installer/install/backup.ts",
    text: "if (sha256(await host.readFile(backup)) !== sha256(bytes)) {",
    by: "if (bytes === undefined) {",
    tests: backup,
  },
  {
    name: "the commit is not synced",
    file: "node-installer/host/guard.ts",
    text: "  if ((await host.stat(stateDirectory)) !== undefined) await host.syncDirectory(stateDirectory);\n",
    by: "",
    tests: arming,
  },
  {
    name: "the guard's links are not synced",
    file: "node-installer/host/guard.ts",
    text: "  for (const link of wantedLinks) await host.syncDirectory(posix.dirname(link));\n",
    by: "",
    tests: arming,
  },
  {
    name: "the guard's units are not enabled",
    file: "node-installer/host/guard.ts",
    text: 'systemctl(host, "enable",',
    by: 'systemctl(host, "is-enabled",',
    tests: arming,
  },
  {
    name: "the guard's timer is not started",
    file: "node-installer/host/guard.ts",
    text: 'systemctl(host, "restart",',
    by: 'systemctl(host, "status",',
    tests: arming,
  },
  {
    name: "the order is there before the timer runs",
    file: "node-installer/host/guard.ts",
    text: '  await systemctl(host, "enable",',
    by: '  await writeFileAtomically(host, armedPath, formatOrder(order), rootOwned(0o600));\n  await systemctl(host, "enable",',
    tests: arming,
  },
  {
    name: "a file that took the name is replaced",
    file: "node-installer/host/node-host.ts",
    text: "if (sync.lstatSync(path, { bigint: true }).ino !== sync.fstatSync(old, { bigint: true }).ino) {",
    by: "if (sync.fstatSync(old).size < 0) {",
    tests: disk,
  },
  {
    name: "what a late writer wrote is lost",
    file: "node-installer/host/node-host.ts",
    text: 'return sha256(bytes) === expected ? { result: "replaced" } : { result: "foreign", bytes };',
    by: 'return bytes.length >= 0 ? { result: "replaced" } : { result: "foreign", bytes };',
    tests: disk,
  },
  {
    name: "a removed runtime's files may come back",
    file: "node-installer/install/clean-up.ts",
    text: "    await syncIfThere(host, runtimesDirectory);\n",
    by: "",
    tests: backup,
  },
  {
    name: "a change that kills its installer is resumed for ever",
    file: "node-installer/install/recover.ts",
    text: "  if (attempts > maximumResumptions) {",
    by: "  if (attempts < 0) {",
    tests: recovery,
  },
  {
    name: "nobody locks the node",
    file: "node-installer/host/node-lock.ts",
    text: "  const lock = await host.lock(lockPath, timeoutMs);\n",
    by: "  const lock = { release: async () => {} };\n",
    tests: locks,
  },
  {
    name: "a ticket is given back after a rollback",
    file: "node-installer/install/undo.ts",
    text: "  // A change that only restarts has nothing to restore, but it was tried.\n",
    by: "  await cluster.tickets.release();\n",
    tests: [`${unit}/install/undo.test.ts`],
  },
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
    text: "  return isNew || restartsLeft(restarts, host.now().getTime()).left >= 2;",
    by: "  return isNew || restartsLeft(restarts, host.now().getTime()).left >= 0;",
    tests: restarts,
  },
  {
    name: "the budget of restarts is spent to the last, so that a rollback has none",
    file: "node-installer/install/restarts.ts",
    text: "  return isNew || restartsLeft(restarts, host.now().getTime()).left >= 2;",
    by: "  return isNew || restartsLeft(restarts, host.now().getTime()).left >= 1;",
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
    name: "a request for another attempt does not forget the restarts",
    file: "node-installer/install/converge.ts",
    text: "  if (isNews || retry) await forgetRestarts(environment.host);\n",
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
    text: "    ...(await unfit(located, wanted)),\n",
    by: "    ...(await unfit(located, wanted)).slice(0, 0),\n",
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
    text: "  if (journal === undefined && !isComplete) {",
    by: "  if (journal === undefined && isComplete) {",
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
    text: "        await recoverFirst(environment);\n        retry = await cluster.reporter.retryToken();\n",
    by: "        retry = await cluster.reporter.retryToken();\n        await recoverFirst(environment);\n",
    tests: labels,
  },
];
