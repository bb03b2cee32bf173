#!/usr/bin/env bash
# Installs what a build needs and a fresh Debian lacks: a C compiler, mold, protoc.
set -euo pipefail

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need clang clang
need mold mold
need protoc protobuf-compiler
need cc build-essential
need pkg-config pkg-config
[ -e /usr/include/google/protobuf/empty.proto ] || missing+=(libprotobuf-dev)

if [ "${#missing[@]}" -gt 0 ]; then
    command -v apt-get >/dev/null 2>&1 || {
        echo "please install: ${missing[*]} (no apt-get here)" >&2
        exit 1
    }
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo"
    echo "installing ${missing[*]}" >&2
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "${missing[@]}" >/dev/null
fi

command -v cargo >/dev/null 2>&1 || [ -x "$HOME/.cargo/bin/cargo" ] || {
    echo "please install rustup: the toolchain itself is pinned in rust-toolchain.toml" >&2
    exit 1
}
