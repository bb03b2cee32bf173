#!/usr/bin/env bash
# Runs a quiet command beside a loud one and ends when both have.
#   together.sh QUIET... -- LOUD...
# The quiet one has the lower priority, and its output is shown only when it fails: then so
# does this.  When the loud one fails, the quiet one is ended.
set -euo pipefail

quiet=()
while [ "${1:?together.sh QUIET... -- LOUD...}" != -- ]; do
    quiet+=("$1")
    shift
done
shift

log=$(mktemp)
trap 'rm -f "$log"' EXIT
nice -n 10 "${quiet[@]}" >"$log" 2>&1 &
beside=$!

"$@" || {
    status=$?
    kill "$beside" 2>/dev/null || true
    wait "$beside" || true
    exit "$status"
}
kill -0 "$beside" 2>/dev/null && echo "waiting for: ${quiet[*]}" >&2
wait "$beside" || {
    status=$?
    cat "$log" >&2
    echo "failed beside the build: ${quiet[*]}" >&2
    exit "$status"
}
