// npm run image:renew: pins the newest versions of the Debian packages in the installer's image. Commit what changes.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BasePins, debianLicences, debianSuite, pinsFile } from "../image/base.ts";
import { newestPackages } from "../programs/debian.ts";
import { runScript } from "./script.ts";

/** What the new pins change, a line per package. */
function pinChanges(before: BasePins | undefined, after: BasePins): string[] {
  return after.packages.flatMap(({ name, version, sha256 }) => {
    const old = before?.packages.find((one) => one.name === name);
    if (old?.sha256 === sha256) return [];
    return [`  ${name} ${old ? `${old.version} -> ` : ""}${version}`];
  });
}

async function renew(): Promise<number> {
  const before = await readFile(pinsFile, "utf8").then(
    (text) => JSON.parse(text) as BasePins,
    () => undefined,
  );
  const directory = await mkdtemp(join(tmpdir(), "renew-"));
  try {
    const packages = await newestPackages(debianSuite, Object.keys(debianLicences), directory);
    const now = new Date().toISOString().replace(/[-:]|\.\d+/g, "");
    const after: BasePins = { suite: debianSuite, snapshot: now, packages };
    const changes = pinChanges(before, after);
    // With the same packages the old time is as good: nothing to commit.
    if (changes.length > 0) await writeFile(pinsFile, `${JSON.stringify(after, undefined, 2)}\n`);
    for (const line of changes) console.log(line);
    console.log(changes.length > 0 ? `Pinned in ${pinsFile} (commit it).` : "The pinned packages are the newest.");
    return 0;
  } finally {
    await rm(directory, { recursive: true });
  }
}

if (import.meta.main)
  await runScript("npm run image:renew", "Pins the newest Debian packages of the installer's image.", renew);
