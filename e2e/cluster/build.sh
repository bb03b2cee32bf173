#!/usr/bin/env bash
# Builds a whole Kubernetes out of Go modules and prints the folder of its programs.  About
# 10 minutes of one core the first time, nothing when they are there.
# Exit code 3: there is no Go toolchain for it.
set -euo pipefail
cd "$(dirname "$0")/../.."

# The last line that is at home with containerd 1.x and cgroup v1 too.
kubernetes=1.34.4
programs="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl"
bin="${RHUMB_CACHE:-$HOME/.cache/rhumb}/bin"
home="$bin/kubernetes-$kubernetes"

# k8s.io/kubernetes is a module like any other: whoever depends on it only has to pin its
# staging modules by replace lines.
build_kubernetes() {
    local go package=k8s.io/component-base/version replaced module source
    go=$(command -v go || echo /usr/local/go/bin/go)
    [ -x "$go" ] || {
        echo "no Kubernetes to test with: install Go 1.26 or newer to build $kubernetes" >&2
        exit 3
    }
    mkdir -p "$bin"
    work=$(mktemp -d "$bin/.build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "building Kubernetes $kubernetes (10 to 20 minutes, once)" >&2
    (
        cd "$work"
        printf 'module rhumb/kubernetes\n\ngo 1.26\n\nrequire k8s.io/kubernetes v%s\n' "$kubernetes" >go.mod
        "$go" mod download "k8s.io/kubernetes@v$kubernetes"
        source=$("$go" list -m -f '{{.Dir}}' k8s.io/kubernetes)
        replaced=$(awk '/=> \.\/staging/ { print $1 }' "$source/go.mod")
        for module in $replaced; do
            echo "replace $module => $module v0.${kubernetes#1.}"
        done >>go.mod
        {
            echo 'package tools'
            for program in $programs; do echo "import _ \"k8s.io/kubernetes/cmd/$program\""; done
        } >tools.go
        "$go" mod tidy
        mkdir out
        for program in $programs; do
            CGO_ENABLED=0 "$go" build -trimpath -o "out/$program" \
                -ldflags "-s -w -X $package.gitVersion=v$kubernetes -X $package.gitMajor=1 -X $package.gitMinor=34 -X $package.gitTreeState=clean" \
                "k8s.io/kubernetes/cmd/$program"
        done
    ) >&2
    # In one step: a build that was cut off leaves nothing that looks whole.
    [ -d "$home" ] || mv "$work/out" "$home"
}

[ -d "$home" ] || build_kubernetes
ln -sfn "kubernetes-$kubernetes/kubectl" "$bin/kubectl"
./scripts/go-tool.sh etcd 3.6.4 go.etcd.io/etcd/server/v3 >/dev/null
./scripts/go-tool.sh coredns 1.12.4 github.com/coredns/coredns >/dev/null
./scripts/s3-server.sh >/dev/null
./scripts/helm.sh >/dev/null
echo "$home"
