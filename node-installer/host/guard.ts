import { readFileSync } from "node:fs";
import { posix } from "node:path";
import { quote } from "../../runtime/shell.ts";
import { lockPath, logPath, readIfThere, rootOwned, stagedPath, stateDirectory, writeFileAtomically } from "./files.ts";
import { type Host, ifInTime } from "./host.ts";

/**
 * The guard: a script on the host that finishes a rollback if the installer cannot, because its pod, kubelet or the node
 * died, or because the CRI that would have to restart the pod is what broke. systemd runs it on a timer, and at boot
 * before containerd.
 *
 * Everything that it needs to know is in one plain file, `guard.armed`, which exists exactly while a change of
 * containerd's file is not committed: removing it is the commit.
 */
export const guardName = "contrast-runtime-guard";
const servicePath = `/etc/systemd/system/${guardName}.service`;
const timerPath = `/etc/systemd/system/${guardName}.timer`;
export const guardScriptPath = posix.join(stateDirectory, "guard.sh");
export const armedPath = posix.join(stateDirectory, "guard.armed");
/** What `guard.armed` becomes once the guard has acted; its last line is `outcome=…`, unless the disk was full. */
export const firedPath = posix.join(stateDirectory, "guard.fired");
/** The staged form of `guard.fired`; an interrupted guard leaves it behind. */
const firingPath = posix.join(stateDirectory, "guard.firing");

/** The script's staged file; an interrupted guard leaves it behind. */
export const guardStagedPath = (file: string): string =>
  posix.join(posix.dirname(file), `.${posix.basename(file)}.contrast-guard`);

export interface GuardOrder {
  file: string;
  /** Digests; undefined: the file is absent. */
  before: string | undefined;
  after: string | undefined;
  backup: string | undefined;
  /** What to restart; undefined if the distribution does so itself. */
  unit: string | undefined;
  /** Handlers that the change adds: by them its tables are known in a file that somebody else has written since. */
  added: readonly string[];
}

/** Lines of `key=value`, read without quoting. */
export const formatOrder = (order: GuardOrder): string =>
  [
    `file=${order.file}`,
    `before=${order.before ?? "absent"}`,
    `after=${order.after ?? "absent"}`,
    `backup=${order.backup ?? ""}`,
    `unit=${order.unit ?? ""}`,
    ...order.added.map((handler) => `added=${handler}`),
    "",
  ].join("\n");

export interface GuardPlaces {
  state: string;
  lock: string;
  log: string;
}

const script = readFileSync(new URL("guard.sh", import.meta.url), "utf8");

export const guardScript = ({ state, lock, log }: GuardPlaces): string =>
  `set -- ${[state, lock, log, `${guardName}.timer`].map(quote).join(" ")}\n${script}`;

/** Before the disk that holds the file is mounted, the file would look as if somebody had removed it. */
const mountOf = (file: string) => `"${posix.dirname(file).replaceAll("%", "%%")}"`;

const serviceUnit = (unit: string, file: string) => `[Unit]
Description=Restores containerd's configuration if the Contrast runtime's installer left a change unfinished
RequiresMountsFor=${stateDirectory} ${mountOf(file)}
Before=${unit}

[Service]
Type=oneshot
ExecStart=/bin/sh ${guardScriptPath}

[Install]
WantedBy=multi-user.target
`;

const timerUnit = `[Unit]
Description=Guards containerd's configuration until the Contrast runtime's installer has committed its change

[Timer]
OnActiveSec=15s
OnUnitInactiveSec=10s
AccuracySec=1s

[Install]
WantedBy=timers.target
`;

async function systemctl(host: Host, ...args: string[]): Promise<void> {
  const { code, stderr } = await host.run("systemctl", args);
  if (code !== 0) throw new Error(`systemctl ${args.join(" ")} failed (exit code ${code}): ${stderr.trim()}`);
}

/** What `systemctl enable` creates; also removed by name, because `disable` refuses units whose files are gone. */
const wantedLinks = [
  `/etc/systemd/system/multi-user.target.wants/${guardName}.service`,
  `/etc/systemd/system/timers.target.wants/${guardName}.timer`,
];

/** From here on the host restores the old bytes itself, unless `commitGuard` comes first. */
export async function armGuard(host: Host, unit: string, order: GuardOrder): Promise<void> {
  await host.remove(firedPath);
  const script = guardScript({ state: stateDirectory, lock: lockPath, log: logPath });
  await writeFileAtomically(host, guardScriptPath, script, rootOwned(0o700));
  await writeFileAtomically(host, servicePath, serviceUnit(unit, order.file), rootOwned(0o644));
  await writeFileAtomically(host, timerPath, timerUnit, rootOwned(0o644));
  await systemctl(host, "enable", `${guardName}.service`, `${guardName}.timer`);
  // systemctl syncs nothing, and without its links no boot starts the guard.
  for (const link of wantedLinks) await host.syncDirectory(posix.dirname(link));
  // The timer of a killed run may still be active; it must start anew.
  await systemctl(host, "restart", `${guardName}.timer`);
  await writeFileAtomically(host, armedPath, formatOrder(order), rootOwned(0o600));
}

/** The commit: the new bytes stay. */
export async function commitGuard(host: Host): Promise<void> {
  await host.remove(armedPath);
  // Somebody may have deleted the directory with everything in it.
  if ((await host.stat(stateDirectory)) !== undefined) await host.syncDirectory(stateDirectory);
}

const written = [timerPath, servicePath, guardScriptPath, armedPath];
/** All that there is of the guard without an order, also what a kill while it was armed or removed leaves. */
const parts = [...written.map(stagedPath), timerPath, servicePath, guardScriptPath, firingPath, firedPath];

/** Whether any part of the guard is on the host. */
export async function guardIsThere(host: Host): Promise<boolean> {
  for (const path of [armedPath, ...parts]) {
    if ((await host.stat(path)) !== undefined) return true;
  }
  return false;
}

/** Removes the guard from the host; only after `commitGuard`. */
export async function removeGuard(host: Host): Promise<void> {
  if (!(await guardIsThere(host))) return;
  // Fails if a killed run left only part of the units: what matters is that their files are removed.
  await host.run("systemctl", ["disable", "--now", `${guardName}.timer`, `${guardName}.service`]);
  for (const path of [...wantedLinks, ...parts]) await host.remove(path);
  // The guard may have been stopped while it was running, and a failed unit outlives its file.
  await ifInTime(host.run("systemctl", ["reset-failed", `${guardName}.service`]));
  await ifInTime(host.run("systemctl", ["daemon-reload"]));
}

/**
 * What the guard did since we armed it, for the log; undefined if it did nothing. restored, unchanged: the old bytes are
 * in place. withdrawn: somebody else's bytes, without the tables of this change. set-aside: the old bytes, and somebody
 * else's beside them. foreign: somebody else's, in which there was nothing of this change.
 */
export async function guardOutcome(host: Host): Promise<string | undefined> {
  const text = (await readIfThere(host, firedPath))?.toString();
  return text === undefined ? undefined : (text.match(/^outcome=(.*)$/m)?.[1] ?? "acted on a full disk");
}
