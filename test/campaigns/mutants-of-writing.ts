import type { Mutant } from "./mutants.ts";

const unit = "test/unit/node-installer";
const disk = [`${unit}/host/durability.test.ts`];
const guard = [`${unit}/host/guard.test.ts`];
const arming = [`${unit}/host/arm-guard.test.ts`];
const backup = [`${unit}/install/backup.test.ts`];
const recovery = [`${unit}/install/recover.test.ts`];
const locks = [`${unit}/host/node-host.test.ts`, `${unit}/install/converge.test.ts`];
const places = [`${unit}/install/places.test.ts`];

/** Of what makes writes durable, replacements safe, and the place of our tables certain. */
export const ofWriting: readonly Mutant[] = [
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
    text: "    await file.sync();\n",
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
    text: "if (sha256(await host.readFile(backup)) !== sha256(bytes))",
    by: "if (bytes === undefined)",
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
    name: "a backup that no journal took stays beside an earlier change's",
    file: "node-installer/install/undo.ts",
    text: "  if (backup !== undefined && backup !== transaction?.backup)\n",
    by: "  if (backup !== undefined && transaction === undefined)\n",
    tests: [`${unit}/install/undo.test.ts`],
  },
  {
    name: "a new file gets our tables as well, although it imports the one that has them",
    file: "node-installer/containerd/place.ts",
    text: "    return (await importedPlace(host, root, installed)) ?? root;\n",
    by: "    return root;\n",
    tests: places,
  },
  {
    name: "an imported file goes with our last table, and containerd does not start without it",
    file: "node-installer/containerd/edit.ts",
    text: '  if (kind === "imported" && parts.before + parts.after === "") return',
    by: '  if (kind === "imported" && parts.before + parts.after === "version") return',
    tests: places,
  },
  {
    name: "runc goes with our last table from an imported file",
    file: "node-installer/containerd/edit.ts",
    text: '(others.length > 0 || kind === "imported")',
    by: "others.length > 0",
    tests: places,
  },
  {
    name: "a new file that imports ours may have changed unseen",
    file: "node-installer/containerd/pending.ts",
    text: 'kind === "imported" ? [root, ...imports] : imports',
    by: "imports",
    tests: places,
  },
];
