# Restores containerd's configuration if the Contrast runtime's installer left a change to it unfinished.
# Written by the installer before each change and removed by it afterwards.
# $1: the directory with the order; $2: the node's lock; $3: the installer's log; $4: the timer that runs this.
#
# What every systemd host has suffices: coreutils, util-linux, grep and sed. It never interferes with a live installer (the
# lock; unless it has hung for half an hour), keeps every line that somebody wrote into the file meanwhile, needs no free
# space to restore the backup, and can itself be interrupted anywhere: the order stands until everything is done.
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

file='' before='' after='' backup='' unit='' added=''
while IFS= read -r line; do
  case "$line" in
  file=*) file=${line#file=} ;;
  before=*) before=${line#before=} ;;
  after=*) after=${line#after=} ;;
  backup=*) backup=${line#backup=} ;;
  unit=*) unit=${line#unit=} ;;
  added=*) added="$added ${line#added=}" ;;
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

# Whether $2 has a line like $1. Not being able to tell is a reason to try again, not an answer.
has() {
  grep -q -e "$1" "$2"
  case $? in
  0) return 0 ;;
  1) return 1 ;;
  *) exit 1 ;;
  esac
}

# Whether $1 still has a table of this change, in whatever form somebody wrote it: a handler's name outside of comments.
names_added() {
  for handler in $added; do
    if has "^[^#]*$handler" "$1"; then return 0; fi
  done
  return 1
}

# Whether $1 has the block as the installer wrote it: its first line has the checksum of those between the fences.
block='/^# BEGIN contrast-runtime/,/^# END contrast-runtime/'
has_block() {
  has '^# BEGIN contrast-runtime' "$1" || return 1
  sum=$(sed -n 's/^# BEGIN contrast-runtime (managed, do not edit;.* \([0-9a-f]\{16\}\)).*/\1/p' "$1") || exit 1
  body=$(sed -n "${block}p" "$1" | sed '1d;$d' | tr -d '\r')
  body=$(printf %s "$body" | sha256sum)
  [ "$sum" = "$(printf %.16s "$body")" ]
}

# Whether both the file's block and the one from before are known.
has_blocks() {
  has_block "$file" || return 1
  if [ -z "$backup" ] || ! has '^# BEGIN contrast-runtime' "$backup"; then
    earlier=''
  else
    has_block "$backup" || return 1
    earlier=$backup
  fi
}

# $1 without the lines of $2, and without the tables of this change: each from a header that names its handler to the next
# header. Comments stay.
without_added() {
  set -- "$1" -e "$2" -e '/^[[:space:]]*#/b' -e '/^[[:space:]]*$/b' -e '/^[[:space:]]*\[/h' -e G
  for handler in $added; do set -- "$@" -e "/\\n.*$handler/d"; done
  from=$1
  shift
  sed "$@" -e 's/\n.*//' "$from"
}

# Puts the staged file in the place of what was read, unless somebody has written since.
put() {
  sync "$staged" && [ "$(digest "$file")" = "$current" ] && mv -f "$staged" "$file" && sync "$directory"
}

restore() {
  if [ "$before" = absent ]; then
    [ "$(digest "$file")" = "$current" ] && rm -f "$file" && sync "$directory"
    return
  fi
  if ! { cp -a -L "$backup" "$staged" && [ "$(digest "$staged")" = "$before" ]; }; then
    echo "there is no room for a copy: the backup $backup itself becomes the file" >&2
    rm -f "$staged"
    staged=$backup
  fi
  put
}

aside=''
current=$(digest "$file")
kept=$before
[ "$before" = absent ] || kept=$(digest "$backup")
# What cannot be read now may be readable next time.
[ -n "$current" ] && [ -n "$kept" ] || exit 1
directory=$(dirname "$file")
staged="$directory/.$(basename "$file").contrast-guard"
rm -f "$staged"
[ "$kept" = "$before" ] || echo "the backup $backup has changed, and is not used" >&2
if [ "$current" = "$before" ]; then
  outcome=unchanged
elif [ "$current" = "$after" ] && [ "$kept" = "$before" ]; then
  restore || exit 1
  outcome=restored
elif [ "$current" != absent ] && [ "$current" != "$after" ] && [ "$kept" = "$before" ] && has_blocks; then
  # Somebody edited the file meanwhile: their text stays, and our block becomes what it was.
  cp -a -L "$file" "$staged" && without_added "$file" "${block}d" >"$staged" || exit 1
  if [ -n "$earlier" ]; then
    [ -z "$(tail -c 1 "$staged")" ] || echo >>"$staged" || exit 1
    sed -n "${block}p" "$earlier" >>"$staged" || exit 1
  fi
  put || exit 1
  outcome=withdrawn
elif [ "$current" != absent ] && names_added "$file"; then
  # Somebody wrote the file anew, with our tables in other clothes: these go, and everything else stays.
  cp -a -L "$file" "$staged" && without_added "$file" '' >"$staged" || exit 1
  outcome=withdrawn
  if ! names_added "$staged"; then
    put || exit 1
  elif [ "$kept" = "$before" ]; then
    # Such as one line with all runtimes: no part of it can be removed with certainty.
    rm -f "$staged"
    aside="$file.$(printf %.12s "$current").foreign"
    ln -f "$file" "$aside" || cp -a -L "$file" "$aside" || exit 1
    restore || exit 1
    echo "what another program wrote into $file meanwhile is in $aside now"
    outcome=set-aside
  else
    exit 1
  fi
elif [ "$current" = "$after" ]; then
  echo "$file stays as it is" >&2
  exit 1
else
  outcome=foreign
fi

# A line for each restart of containerd, as the installer counts its own (restart-budget.ts).
count_restart() {
  echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) guard" >>"$state/restarts"
}

# Whether containerd may run with what the installer wrote: it was started since the order was given, and before somebody
# changed the file again. Whoever changed it otherwise also loads it, and if it does not load, that is not for us to show.
runs_ours() {
  started=$(systemctl show --property=ExecMainStartTimestampMonotonic "$unit")
  started=${started#*=}
  case $started in '' | *[!0-9]*) return 0 ;; esac
  read -r up _ </proc/uptime || return 0
  # In seconds, with one for each rounding.
  started=$(($(date +%s) - ${up%.*} + started / 1000000))
  [ $((started + 2)) -ge "$(stat -c %Y "$armed")" ] || return 1
  changed=$(stat -c %Z "$file" 2>/dev/null) || return 0
  [ $((changed + 2)) -ge "$started" ]
}

# At boot this runs before containerd is started, so waiting for the restart would never end.
if [ -n "$unit" ] && { [ "$outcome" != foreign ] || runs_ours; }; then
  count_restart
  systemctl reset-failed "$unit" 2>/dev/null
  systemctl --no-block restart "$unit" || exit 1
fi

echo "guard: $file: $outcome"
logs=$(dirname "$log")
mkdir -p "$logs"
[ ! -O "$logs" ] || [ -L "$logs" ] ||
  printf '{"time":"%s","level":"warn","event":"guard","outcome":"%s"%s}\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$outcome" \
    "${aside:+,\"aside\":\"$aside\"}" >>"$log"
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
