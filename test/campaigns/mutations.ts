// mutations.ts [NAME …]: takes out, one after the other, what makes writes durable and replacements safe, and shows that
// the unit tests notice each. It works on a copy of the repository; a mutant takes some seconds. Ends with 1 if one survives.
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

interface Mutant {
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
const backup = [`${unit}/install/backup.test.ts`];

const mutants: Mutant[] = [
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
    name: "the guard's withdrawal is not synced",
    file: "node-installer/host/guard.sh",
    text: '    sync "$staged" && [',
    by: "    [",
    tests: guard,
  },
  {
    name: "the guard's copy of the backup is not synced",
    file: "node-installer/host/guard.sh",
    text: 'cp -p "$backup" "$staged" && sync "$staged" &&',
    by: 'cp -p "$backup" "$staged" &&',
    tests: guard,
  },
  {
    name: "the name of what the guard restored is not synced",
    file: "node-installer/host/guard.sh",
    text: 'mv -f "$restored" "$file" && sync "$directory"',
    by: 'mv -f "$restored" "$file"',
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
    tests: guard,
  },
  {
    name: "the guard's links are not synced",
    file: "node-installer/host/guard.ts",
    text: "  for (const link of wantedLinks) await host.syncDirectory(posix.dirname(link));\n",
    by: "",
    tests: guard,
  },
  {
    name: "the guard's units are not enabled",
    file: "node-installer/host/guard.ts",
    text: 'systemctl(host, "enable",',
    by: 'systemctl(host, "is-enabled",',
    tests: guard,
  },
  {
    name: "the guard's timer is not started",
    file: "node-installer/host/guard.ts",
    text: 'systemctl(host, "restart",',
    by: 'systemctl(host, "status",',
    tests: guard,
  },
  {
    name: "the order is there before the timer runs",
    file: "node-installer/host/guard.ts",
    text: '  await systemctl(host, "enable",',
    by: '  await writeFileAtomically(host, armedPath, formatOrder(order), rootOwned(0o600));\n  await systemctl(host, "enable",',
    tests: guard,
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
];

const wanted = process.argv.slice(2);
const repository = resolve(import.meta.dirname, "../..");
const copy = mkdtempSync(join(tmpdir(), "mutations-"));
const skipped = /^(node_modules|\.git|\.local|dist)$/;
let survived = 0;
try {
  cpSync(repository, copy, {
    recursive: true,
    filter: (path) => !skipped.test(path.slice(repository.length + 1)),
  });
  symlinkSync(join(repository, "node_modules"), join(copy, "node_modules"));
  const passes = (tests: string[]): boolean =>
    spawnSync(process.execPath, ["node_modules/vitest/vitest.mjs", "run", ...tests], { cwd: copy }).status === 0;
  if (!passes([...disk, ...guard, ...backup])) throw new Error("the tests fail without any mutant");
  for (const { name, file, text, by, tests } of mutants) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    const path = join(copy, file);
    const original = readFileSync(path, "utf8");
    if (original.split(text).length !== 2) throw new Error(`${name}: ${JSON.stringify(text)} is not once in ${file}`);
    writeFileSync(
      path,
      original.replace(text, () => by),
    );
    const isUnnoticed = passes(tests);
    writeFileSync(path, original);
    if (isUnnoticed) survived += 1;
    console.log(`${isUnnoticed ? "SURVIVED" : "caught"}: ${name}`);
  }
} finally {
  rmSync(copy, { recursive: true });
}
process.exitCode = survived === 0 ? 0 : 1;
