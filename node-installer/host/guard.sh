# Restores containerd's configuration if the Contrast runtime's installer left a change to it unfinished.
# Written by the installer before each change and removed by it afterwards.
# $1: the directory with the order; $2: the node's lock; $3: the installer's log; $4: the timer that runs this.
#
# What every systemd host has suffices: coreutils, util-linux, grep and sed. It never interferes with a live installer (the
# lock; unless it has hung for half an hour), keeps every line that somebody added to the file meanwhile, needs no free
# space, and can itself be interrupted anywhere: the order stands until everything is done.
set -u
umask 077
state=$1 lock=$2 log=$3 timer=$4
# Seconds. Twice as long as an installer's pod may take to end; then whoever holds the lock has stopped working.
patience=1800
armed="$state/guard.armed"
[ -f "$armed" ] || exit 0

mkdir -p "$(dirname "$lock")"
exec 9>>"$lock"
if ! flock -n 9; then
  since=$(stat -c %Y "$armed") || exit 0
  if [ $(($(date +%s) - since)) -lt $patience ]; then
    echo "an installer is working on this node: nothing to do"
    exit 0
  fi
  echo "the lock is held, but nothing has been finished for $patience s: acting without it" >&2
fi
[ -f "$armed" ] || exit 0

file='' before='' after='' backup='' unit=''
while IFS= read -r line; do
  case "$line" in
  file=*) file=${line#file=} ;;
  before=*) before=${line#before=} ;;
  after=*) after=${line#after=} ;;
  backup=*) backup=${line#backup=} ;;
  unit=*) unit=${line#unit=} ;;
  esac
done <"$armed"

digest() {
  if [ -e "$1" ]; then
    set -- "$(sha256sum <"$1")"
    echo "${1%% *}"
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
  if [ "$current" != absent ] && sed -n "${block}p" "$file" | tail -n 1 | grep -q '^# END contrast-runtime'; then
    cp -p "$file" "$staged" || exit 1
    sed "${block}d" "$file" >"$staged" || exit 1
    if [ -n "$backup" ] && grep -q '^# BEGIN contrast-runtime' "$backup"; then
      [ -z "$(tail -c 1 "$staged")" ] || echo >>"$staged" || exit 1
      sed -n "${block}p" "$backup" >>"$staged" || exit 1
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
  restored=$staged
  if ! { cp -p "$backup" "$staged" && sync "$staged" && [ "$(digest "$staged")" = "$before" ]; }; then
    echo "there is no room for a copy: the backup $backup itself becomes the file" >&2
    rm -f "$staged"
    restored=$backup
  fi
  [ "$(digest "$file")" = "$current" ] && mv -f "$restored" "$file" && sync "$directory" || exit 1
  outcome=restored
fi

# At boot this runs before containerd is started, so waiting for the restart would never end.
if [ -n "$unit" ] && [ "$outcome" != foreign ]; then
  systemctl reset-failed "$unit" 2>/dev/null
  systemctl --no-block restart "$unit" || exit 1
fi

echo "guard: $file: $outcome"
logs=$(dirname "$log")
mkdir -p "$logs"
[ ! -O "$logs" ] || [ -L "$logs" ] ||
  printf '{"time":"%s","level":"warn","event":"guard","outcome":"%s"}\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$outcome" >>"$log"
if cp "$armed" "$state/guard.firing" && echo "outcome=$outcome" >>"$state/guard.firing"; then
  mv -f "$state/guard.firing" "$state/guard.fired" && rm -f "$armed"
else
  # No room left to write: if the order stood, every tick would restart containerd.
  rm -f "$state/guard.firing"
  mv -f "$armed" "$state/guard.fired"
fi
sync "$state"
systemctl --no-block stop "$timer"
exit 0
