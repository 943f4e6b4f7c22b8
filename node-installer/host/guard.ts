import { posix } from "node:path";
import { lockPath, logPath, readIfThere, rootOwned, stateDirectory, writeFileAtomically } from "./files.ts";
import type { Host } from "./host.ts";

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
}

/** Lines of `key=value`, read without quoting. */
export const formatOrder = (order: GuardOrder): string =>
  [
    `file=${order.file}`,
    `before=${order.before ?? "absent"}`,
    `after=${order.after ?? "absent"}`,
    `backup=${order.backup ?? ""}`,
    `unit=${order.unit ?? ""}`,
    "",
  ].join("\n");

export interface GuardPlaces {
  state: string;
  lock: string;
  log: string;
}

/** Twice as long as an installer's pod may take to end; then whoever holds the lock has stopped working. */
const patienceSeconds = 1_800;

/**
 * POSIX sh with what every systemd host has: coreutils, util-linux, grep and sed. It never interferes with a live installer
 * (the lock; unless it has hung for half an hour), keeps every line that somebody added to the file meanwhile, needs no free space, and can itself be
 * interrupted anywhere: the order stands until everything is done.
 */
export function guardScript(places: GuardPlaces): string {
  return `#!/bin/sh
# Restores containerd's configuration if the Contrast runtime's installer left a change to it unfinished.
# Written by the installer before each change and removed by it afterwards; see ${places.log}.
set -u
umask 077
state='${places.state}'
armed="$state/guard.armed"
[ -f "$armed" ] || exit 0

mkdir -p "$(dirname '${places.lock}')"
exec 9>>'${places.lock}'
if ! flock -n 9; then
  since=$(stat -c %Y "$armed") || exit 0
  if [ $(($(date +%s) - since)) -lt ${patienceSeconds} ]; then
    echo "an installer is working on this node: nothing to do"
    exit 0
  fi
  echo "the lock is held, but nothing has been finished for ${patienceSeconds} s: acting without it" >&2
fi
[ -f "$armed" ] || exit 0

file= before= after= backup= unit=
while IFS= read -r line; do
  case "$line" in
  file=*) file=\${line#file=} ;;
  before=*) before=\${line#before=} ;;
  after=*) after=\${line#after=} ;;
  backup=*) backup=\${line#backup=} ;;
  unit=*) unit=\${line#unit=} ;;
  esac
done <"$armed"

digest() {
  if [ -e "$1" ]; then
    set -- "$(sha256sum <"$1")"
    echo "\${1%% *}"
  else
    echo absent
  fi
}

current=$(digest "$file")
# What cannot be read now may be readable next time.
[ -n "$current" ] || exit 1
directory=$(dirname "$file")
staged="$directory/.$(basename "$file").contrast-guard"
rm -f "$staged"
if [ "$current" = "$before" ]; then
  outcome=unchanged
elif [ "$current" != "$after" ]; then
  # Somebody edited the file meanwhile: their text stays, and our block becomes what it was.
  outcome=foreign
  block='/^# BEGIN contrast-runtime/,/^# END contrast-runtime/'
  # Without its last line, the end of our block is unknown.
  if [ "$current" != absent ] && sed -n "\${block}p" "$file" | tail -n 1 | grep -q '^# END contrast-runtime'; then
    cp -p "$file" "$staged" || exit 1
    sed "\${block}d" "$file" >"$staged" || exit 1
    if [ -n "$backup" ] && grep -q '^# BEGIN contrast-runtime' "$backup"; then
      [ -z "$(tail -c 1 "$staged")" ] || echo >>"$staged" || exit 1
      sed -n "\${block}p" "$backup" >>"$staged" || exit 1
    fi
    sync "$staged" && [ "$(digest "$file")" = "$current" ] || exit 1
    mv -f "$staged" "$file" && sync "$directory" || exit 1
    outcome=withdrawn
  fi
elif [ "$before" = absent ]; then
  rm -f "$file" && sync "$directory" || exit 1
  outcome=restored
else
  if [ "$(digest "$backup")" != "$before" ]; then
    echo "the backup $backup has changed: $file stays as it is" >&2
    exit 1
  fi
  # A full disk has no room for a copy, but it has for a hard link to the backup.
  cp -p "$backup" "$staged" && sync "$staged" && [ "$(digest "$staged")" = "$before" ] ||
    ln -f "$backup" "$staged" || exit 1
  [ "$(digest "$file")" = "$current" ] && mv -f "$staged" "$file" && sync "$directory" || exit 1
  outcome=restored
fi

# At boot this runs before containerd is started, so waiting for the restart would never end.
if [ -n "$unit" ] && [ "$outcome" != foreign ]; then
  systemctl reset-failed "$unit" 2>/dev/null
  systemctl --no-block restart "$unit" || exit 1
fi

echo "guard: $file: $outcome"
log=$(dirname '${places.log}')
mkdir -p "$log"
[ ! -O "$log" ] || [ -L "$log" ] || printf '{"time":"%s","level":"warn","event":"guard","outcome":"%s"}\\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$outcome" >>'${places.log}'
if cp "$armed" "$state/guard.firing" && echo "outcome=$outcome" >>"$state/guard.firing"; then
  mv -f "$state/guard.firing" "$state/guard.fired" && rm -f "$armed"
else
  # No room left to write: if the order stood, every tick would restart containerd.
  rm -f "$state/guard.firing"
  mv -f "$armed" "$state/guard.fired"
fi
sync "$state"
systemctl --no-block stop ${guardName}.timer
exit 0
`;
}

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

/** Whether any part of the guard is on the host. */
export async function guardIsThere(host: Host): Promise<boolean> {
  for (const path of [armedPath, firedPath, guardScriptPath, servicePath, timerPath]) {
    if ((await host.stat(path)) !== undefined) return true;
  }
  return false;
}

/** Removes the guard from the host; only after `commitGuard`. */
export async function removeGuard(host: Host): Promise<void> {
  if (!(await guardIsThere(host))) return;
  // Fails if a killed run left only part of the units: what matters is that their files are removed.
  await host.run("systemctl", ["disable", "--now", `${guardName}.timer`, `${guardName}.service`]);
  for (const path of [...wantedLinks, timerPath, servicePath, guardScriptPath, firingPath, firedPath])
    await host.remove(path);
  // The guard may have been stopped while it was running, and a failed unit outlives its file.
  await host.run("systemctl", ["reset-failed", `${guardName}.service`]);
  await host.run("systemctl", ["daemon-reload"]);
}

/**
 * What the guard did since we armed it, for the log; undefined if it did nothing. restored, unchanged: the old bytes are
 * in place. withdrawn: somebody else's bytes, with our block as it was. foreign: somebody else's, without our block.
 */
export async function guardOutcome(host: Host): Promise<string | undefined> {
  const text = (await readIfThere(host, firedPath))?.toString();
  return text === undefined ? undefined : (text.match(/^outcome=(.*)$/m)?.[1] ?? "acted on a full disk");
}
