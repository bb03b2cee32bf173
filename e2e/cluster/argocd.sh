#!/usr/bin/env bash
# A real Argo CD beside the cluster of up.sh, as processes of this machine: what
# docs/gitops.md promises is proven with it.  git://127.0.0.1/NAME is the repository
# WORK_FOLDER/argocd/git/NAME.  Run again, it starts what does not run.
#   argocd.sh [WORK_FOLDER]        down.sh ends it too
# Exit code 3: there is no Go toolchain for it.
set -euo pipefail
work=$(cd "${1:-${RHUMB_CLUSTER:-${RHUMB_CACHE:-$HOME/.cache/rhumb}/cluster}}" && pwd)
source "$(dirname "$0")/lib.sh"
home=$work/argocd
redis=127.0.0.1:6399 repositories=127.0.0.1:18081

version=3.1.9 module=github.com/argoproj/argo-cd/v3
"$here/packages.sh" argocd
argocd=$("$root/scripts/go-tool.sh" argocd "$version" "$module/cmd" "$module")
go=$(command -v go || echo /usr/local/go/bin/go)
[ -x "$go" ] || exit 3
manifests=$("$go" mod download -json "$module@v$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')/manifests

mkdir -p "$home"/{gnupg,git,tmp}
chmod 700 "$home/gnupg"
kubectl="$cache/bin/kubectl --kubeconfig=$home/admin.conf"
# It looks for itself in the namespace of the context; scenarios go on with `default`.
install -m 600 "$work/admin.conf" "$home/admin.conf"
$kubectl config set-context --current --namespace=argocd >/dev/null

objects() {
    $kubectl create namespace argocd --dry-run=client -o yaml | $kubectl apply -f -
    local file
    for file in "$manifests"/crds/*-crd.yaml; do $kubectl apply --server-side -f "$file"; done
    for file in "$manifests"/base/config/argocd-*.yaml; do $kubectl apply -n argocd -f "$file"; done
    # As docs/gitops.md has it.
    $kubectl patch configmap argocd-cm -n argocd --patch-file "$root/manifests/argocd/argocd-cm.yaml"
    $kubectl wait --for=condition=Established --timeout=30s crd/{applications,appprojects,applicationsets}.argoproj.io
} >/dev/null

part() { # NAME COMMAND...
    "$here/part.sh" "$work" define "argocd-$1" "${@:2}"
    "$here/part.sh" "$work" start "argocd-$1"
}

program() { # NAME OPTION...: one binary, named by environment
    part "$1" env ARGOCD_BINARY_NAME="argocd-$1" KUBECONFIG="$home/admin.conf" TMPDIR="$home/tmp" \
        ARGOCD_FAKE_IN_CLUSTER=true ARGOCD_GPG_ENABLED=false ARGOCD_GNUPGHOME="$home/gnupg" \
        ARGOCD_TLS_DATA_PATH="$home" ARGOCD_SSH_DATA_PATH="$home" "$argocd" --redis "$redis" "${@:2}"
}

objects
part redis redis-server --bind "${redis%:*}" --port "${redis#*:}" --save '' --dir "$home"
# Not by `git daemon`, whose child would outlive it.
part git "$(git --exec-path)/git-daemon" --base-path="$home/git" --export-all --reuseaddr --listen=127.0.0.1 --port=9418
program repo-server --address 127.0.0.1 --port "${repositories#*:}" --metrics-address 127.0.0.1 --metrics-port 18084 --disable-tls
# Whoever reaches this machine's loopback is its administrator: these are tests.
program server --address 127.0.0.1 --port 18080 --metrics-port 18083 --insecure --disable-auth \
    --repo-server "$repositories" --repo-server-plaintext
# It makes the default project, and the keys that the controller waits for.
within 120 "Argo CD's API server" $kubectl get -n argocd appproject default
# Compared every few seconds: a diff that comes and goes is seen within a short scenario.
program application-controller --metrics-port 18082 --app-resync 5 --app-resync-jitter 0 \
    --repo-server "$repositories" --repo-server-plaintext
say "Argo CD $version syncs from git://127.0.0.1/NAME, which is $home/git/NAME"
