#!/usr/bin/env bash
# Prints the path of helm for the chart tests, building it from its Go module the first
# time.  Exit code 3: there is neither helm nor a Go toolchain to build it with.
set -euo pipefail

version=4.3.1
bin="${RHUMB_CACHE:-$HOME/.cache/rhumb}/bin"
helm="$bin/helm-$version"

if [ ! -x "$helm" ]; then
    if command -v helm >/dev/null; then
        command -v helm
        exit
    fi
    go=$(command -v go || echo /usr/local/go/bin/go)
    [ -x "$go" ] || {
        echo "no helm to test the charts with: install Go 1.26 or newer to build helm $version" >&2
        exit 3
    }
    mkdir -p "$bin"
    work=$(mktemp -d "$bin/.build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "building helm $version (a few minutes, once)" >&2
    GOBIN="$work" CGO_ENABLED=0 GOFLAGS=-trimpath "$go" install -ldflags '-s -w' "helm.sh/helm/v4/cmd/helm@v$version" >&2
    mv "$work/helm" "$helm"
fi
ln -sfn "helm-$version" "$bin/helm"
echo "$bin/helm"
