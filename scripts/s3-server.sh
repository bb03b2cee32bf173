#!/usr/bin/env bash
# Prints the path of a real S3 server for tests (versitygw), building it from its Go module
# the first time.  Exit code 3: there is no Go toolchain to build it with.
set -euo pipefail

version=1.8.0
bin="${RHUMB_CACHE:-$HOME/.cache/rhumb}/bin"
server="$bin/versitygw-$version"

if [ ! -x "$server" ]; then
    go=$(command -v go || echo /usr/local/go/bin/go)
    [ -x "$go" ] || {
        echo "no S3 server to test against: install Go 1.26 or newer to build versitygw $version" >&2
        exit 3
    }
    mkdir -p "$bin"
    work=$(mktemp -d "$bin/.build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "building versitygw $version (a minute or two, once)" >&2
    GOBIN="$work" CGO_ENABLED=0 GOFLAGS=-trimpath "$go" install -ldflags '-s -w' \
        "github.com/versity/versitygw/cmd/versitygw@v$version" >&2
    # In one step: tests of several crates may come here at once.
    mv "$work/versitygw" "$server"
fi
ln -sfn "versitygw-$version" "$bin/versitygw"
echo "$bin/versitygw"
