# The outer machine's only door: a line "ID COMMAND" in (the command in base64), a line "ID RC OUTPUT" out.
port=/dev/virtio-ports/campaign
while [ ! -e "$port" ]; do sleep 1; done
exec 0<>"$port" 1>&0
echo "ready 0 -"
while read -r id command; do
  (
    output=$(printf %s "$command" | base64 -d | sh 2>&1)
    rc=$?
    printf '%s %s %s\n' "$id" "$rc" "$(printf %s "$output" | base64 -w0)"
  ) &
done
