import { existsSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { fromJson } from "../../runtime/from-json.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { withLock } from "../files/mutex.ts";
import { replaceFile } from "../files/replace.ts";
import { clustersDirectory } from "./layout.ts";

/**
 * The few settings of the machine itself that a cluster must change. They are recorded with their old values before they
 * are changed, shared by all clusters, and restored with the last cluster that needs them, unless changed by others since.
 */
const recordSchema = z.object({
  /** Settings do not survive a reboot; their record is ignored then. */
  bootId: z.string(),
  settings: z.array(
    z.object({ file: z.string(), value: z.string(), restore: z.string(), clusters: z.array(z.string()) }),
  ),
});
type HostSettings = z.infer<typeof recordSchema>;

const recordFile = join(clustersDirectory, "host-settings.json");

export interface HostSetting {
  /** A file of /proc/sys or of a cgroup. */
  file: string;
  /** What is written to the file. */
  value: string;
  /** What is written to undo it. */
  restore: string;
}

/** Changes the setting for the cluster and records that. */
export async function changeSetting(cluster: string, setting: HostSetting): Promise<void> {
  await update(async (record) => {
    const known = record.settings.find(({ file, value }) => file === setting.file && value === setting.value);
    if (known) known.clusters = [...new Set([...known.clusters, cluster])];
    else record.settings.push({ ...setting, clusters: [cluster] });
    await save(record);
    await writeFile(setting.file, setting.value);
  });
}

/** Raises a kernel parameter that must be at least this. */
export async function atLeast(cluster: string, file: string, minimum: number): Promise<void> {
  const now = (await readFile(file, "utf8")).trim();
  const ours = (await load()).settings.find((setting) => setting.file === file && setting.value === now);
  if (ours?.clusters.includes(cluster) || (!ours && Number(now) >= minimum)) return;
  await changeSetting(cluster, ours ?? { file, value: String(minimum), restore: now });
}

/** Restores the settings that no other cluster needs. */
export async function restoreSettings(cluster: string): Promise<void> {
  await update(async (record) => {
    for (const setting of record.settings) {
      if (!setting.clusters.includes(cluster)) continue;
      setting.clusters = setting.clusters.filter((one) => one !== cluster);
      if (setting.clusters.length === 0) await restore(setting);
    }
    record.settings = record.settings.filter(({ clusters }) => clusters.length > 0);
    await save(record);
  });
}

async function restore({ file, value, restore }: HostSetting): Promise<void> {
  const now = (await readFile(file, "utf8").catch(() => "")).trim();
  const unchanged = value.startsWith("+") ? now.split(/\s+/).includes(value.slice(1)) : now === value;
  // A controller that others delegate by now, too, cannot be taken away, and need not be.
  if (unchanged) await writeFile(file, restore).catch(() => {});
}

async function update(change: (record: HostSettings) => Promise<void>): Promise<void> {
  await withLock(
    "host settings",
    `process ${process.pid}`,
    () => {},
    async () => change(await load()),
  );
}

async function load(): Promise<HostSettings> {
  const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  const none = { bootId, settings: [] };
  if (!existsSync(recordFile)) return none;
  const { data } = fromJson.pipe(recordSchema).safeParse(await readFile(recordFile, "utf8"));
  if (data !== undefined) return data.bootId === bootId ? data : none;
  throw new Refusal(
    "host-settings-record",
    `${recordFile} is damaged. It says to what this machine's settings return with its last cluster. Remove it: they then stay as they are until the next boot.`,
  );
}

async function save(record: HostSettings): Promise<void> {
  if (record.settings.length === 0) return await rm(recordFile, { force: true });
  await replaceFile(recordFile, JSON.stringify(record, undefined, 2));
}
