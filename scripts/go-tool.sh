#!/usr/bin/env bash
# Prints the path of a program the tests use, building it from its Go module the first
# time: go-tool.sh NAME VERSION PACKAGE [MODULE].  Exit code 3: there is no Go toolchain for
# it.  MODULE has replace lines without which the package does not build: they hold only for
# the main module, so they are copied into it.
set -euo pipefail

name=$1 version=$2 package=$3 module=${4:-}
bin="${RHUMB_CACHE:-$HOME/.cache/rhumb}/bin"
program="$bin/$name-$version"

if [ ! -x "$program" ]; then
    go=$(command -v go || echo /usr/local/go/bin/go)
    [ -x "$go" ] || {
        echo "no $name to test with: install Go 1.26 or newer to build $name $version" >&2
        exit 3
    }
    mkdir -p "$bin"
    work=$(mktemp -d "$bin/.build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "building $name $version (a few minutes, once)" >&2
    # As a dependency of an empty module: `go install` refuses those that replace modules.
    (
        cd "$work"
        printf 'module rhumb/%s\n\ngo 1.26\n' "$name" >go.mod
        [ -z "$module" ] || "$go" mod download -json "$module@v$version" |
            sed -n 's/.*"GoMod": "\(.*\)".*/\1/p' | xargs sed -n '/^replace/,/^)/p' >>go.mod
        "$go" get -tool "$package@v$version"
        CGO_ENABLED=0 "$go" build -trimpath -ldflags '-s -w' -o "$name" "$package"
    ) >&2
    # In one step: tests of several crates may come here at once.
    mv "$work/$name" "$program"
fi
ln -sfn "$name-$version" "$bin/$name"
echo "$bin/$name"
