#!/usr/bin/env bash
# Runs a command with a cluster to test: the one that RHUMB_E2E_KUBECONFIG names, else one of
# this machine's own, which is taken down afterwards unless it was up before.
#   test.sh COMMAND...        where the machine cannot, it says so and succeeds
# RHUMB_ARGOCD=1: with Argo CD beside it, for which scenarios skip themselves elsewhere.
# RHUMB_AUDIT=1: afterwards the rights of operator and data nodes are held against what was
# used of them; on a cluster of this machine's own alone.
set -euo pipefail
work=${RHUMB_CLUSTER:-${RHUMB_CACHE:-$HOME/.cache/rhumb}/cluster}
source "$(dirname "$0")/lib.sh"

# Why there can be no cluster here, if so.
obstacle() {
    [ "$(uname)" = Linux ] || { echo "this is no Linux"; return; }
    [ "$(id -u)" = 0 ] || { echo "only root can make nodes"; return; }
    command -v go >/dev/null || [ -x /usr/local/go/bin/go ] || [ -x "$cache/bin/kubectl" ] || {
        echo "go is missing, so there is no Kubernetes"
        return
    }
    unshare -m true 2>/dev/null || { echo "no right to mount"; return; }
    [ -w /sys/fs/cgroup ] || { echo "no right to make cgroups"; return; }
}

if [ -z "${RHUMB_E2E_KUBECONFIG:-}" ]; then
    reason=$(obstacle)
    if [ -n "$reason" ]; then
        printf '\n*** E2E SKIPPED: %s ***\n*** run it on any cluster: make e2e KUBECONFIG=... ***\n\n' "$reason" >&2
        exit 0
    fi
    if ! "$here/part.sh" "$work" alive apiserver; then
        trap '[ -n "${RHUMB_KEEP:-}" ] || "$here/down.sh" "$work"' EXIT
    fi
    "$here/up.sh" "$work"
    work=$(cd "$work" && pwd)
    [ -z "${RHUMB_ARGOCD:-}" ] || "$here/argocd.sh" "$work" || [ $? = 3 ]
    export RHUMB_E2E_KUBECONFIG=$work/admin.conf RHUMB_E2E_MACHINE=$work
fi
status=0
"$@" || status=$?
if [ -n "${RHUMB_AUDIT:-}" ] && [ -n "${RHUMB_E2E_MACHINE:-}" ]; then
    "$here/rights.py" "$work" || status=1
fi
exit $status
