#!/usr/bin/env bash
# Prepares what a comparison needs (numpy and the peers from PyPI) and runs it: compare.py, or
# text.py when the first word is `text`.
set -euo pipefail
cd "$(dirname "$0")/../.."

target="${CARGO_TARGET_DIR:-$HOME/.cache/rhumb/target}"
venv="$HOME/.cache/rhumb/compare"
if ! "$venv/bin/python" -c "import numpy, faiss, hnswlib, qdrant_edge, tantivy" 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q numpy faiss-cpu hnswlib qdrant-edge-py tantivy
fi
script=compare.py
if [[ "${1:-}" == text ]]; then
    script=text.py
    shift
fi
CARGO_TARGET_DIR="$target" cargo build -q -p rhumb
CARGO_TARGET_DIR="$target/light" cargo build -q -p rhumb-e2e --bin replay
OPENBLAS_NUM_THREADS=2 exec "$venv/bin/python" "e2e/compare/$script" \
    --server "$target/debug/rhumb" --replay "$target/light/debug/replay" "$@"
