#!/usr/bin/env bash
# Opens a live collection's table with pylance, LanceDB's own reader, and compares rows.
# Needs python3 with venv; takes pylance from PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${RHUMB_BIN:?the built rhumb binary}"
home=$(mktemp -d)
trap 'kill "$pid" 2>/dev/null || true; rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q pylance
"$RHUMB_BIN" serve --dev --store "file://$home/store" --cache-dir "$home/cache" --listen 127.0.0.1:7499 >"$home/log" 2>&1 &
pid=$!
url=http://127.0.0.1:7499/v1/collections/words
json='Content-Type: application/json'
until curl -sf http://127.0.0.1:7499/readyz >/dev/null; do sleep 0.1; done
curl -sf -X PUT "$url" -H "$json" -d '{"fields": {"v": {"type": "vector", "dim": 2}}}' >/dev/null
curl -sf "$url/documents" -H "$json" -d '{"upsert": [{"id": "a", "v": [1, 0], "_score": 7}, {"id": "b", "v": [0, 1]}, {"id": "c"}]}' >/dev/null
curl -sf "$url/documents" -H "$json" -d '{"delete": ["b"], "upsert": [{"id": "a", "v": [2, 0], "pos": "n"}]}' >/dev/null
curl -sf "$url/optimize" -H "$json" -d '{"wait": true}' >/dev/null
"$home/venv/bin/python" - "$home/store" <<'PY'
import glob, sys, lance
(table,) = glob.glob(sys.argv[1] + "/c/*/p0/table")
rows = sorted(lance.dataset(table).to_table().to_pylist(), key=lambda row: row["id"])
seen = [(row["id"], row["v"], row.get("pos")) for row in rows]
assert seen == [("a", [2.0, 0.0], "n"), ("c", None, None)], rows
print("pylance", lance.__version__, "sees", seen)
PY
