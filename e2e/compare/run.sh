#!/usr/bin/env bash
# Prepares what compare.py needs (numpy and the peers from PyPI) and runs it.
set -euo pipefail
cd "$(dirname "$0")/../.."

target="${CARGO_TARGET_DIR:-$HOME/.cache/rhumb/target}"
venv="$HOME/.cache/rhumb/compare"
if ! "$venv/bin/python" -c "import numpy, faiss, hnswlib, qdrant_edge" 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q numpy faiss-cpu hnswlib qdrant-edge-py
fi
CARGO_TARGET_DIR="$target" cargo build -q -p rhumb
CARGO_TARGET_DIR="$target/light" cargo build -q -p rhumb-e2e --bin replay
OPENBLAS_NUM_THREADS=2 exec "$venv/bin/python" e2e/compare/compare.py \
    --server "$target/debug/rhumb" --replay "$target/light/debug/replay" "$@"
