#!/usr/bin/env bash
# Installs what nodes need and Debian has; `packages.sh argocd`: what Argo CD needs.
set -euo pipefail

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
[ "${1:-}" != argocd ] || need redis-server redis-server
need containerd containerd
need runc runc
need iptables iptables
need ipset ipset
need conntrack conntrack
need ip iproute2
need openssl openssl
need ethtool ethtool
need socat socat
need gcc gcc
need strip binutils
[ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)

[ "${#missing[@]}" -gt 0 ] || exit 0
command -v apt-get >/dev/null 2>&1 || {
    echo "please install: ${missing[*]} (no apt-get here)" >&2
    exit 1
}
echo "installing ${missing[*]}" >&2
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
