#!/usr/bin/env bash
# Prints the path of helm for the chart tests: ours, else the one that is installed, else
# one built now.  Exit code 3: there is neither, and no Go to build it.
set -euo pipefail

version=4.3.1
if [ ! -x "${RHUMB_CACHE:-$HOME/.cache/rhumb}/bin/helm-$version" ] && command -v helm; then
    exit
fi
exec "$(dirname "$0")/go-tool.sh" helm "$version" helm.sh/helm/v4/cmd/helm
