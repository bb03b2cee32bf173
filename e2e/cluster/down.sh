#!/usr/bin/env bash
# Ends what up.sh started, by the ids that were written down, and takes its mounts, links and
# rules away.  Keys stay, images stay; what the cluster and its bucket held goes.
#   down.sh [WORK_FOLDER]
set -euo pipefail
work=${1:-${RHUMB_CLUSTER:-${RHUMB_CACHE:-$HOME/.cache/rhumb}/cluster}}
[ -d "$work/parts" ] || exit 0
work=$(cd "$work" && pwd)
source "$(dirname "$0")/lib.sh"

# Nothing of what they hold is kept: none has to end in order.
stop() { "$here/part.sh" "$work" stop "$1" KILL; }

# Containers outlive their kubelet and their containerd: they are ended through containerd,
# which knows which are its own.
end_containers() {
    local node=$1 socket ids id
    socket=$(socket_of "$node")
    stop "$node-kubelet"
    "$here/part.sh" "$work" start "$node-containerd"
    within 20 "containerd of $node" ctr -a "$socket" version || return 0
    ids=$(ctr -a "$socket" -n k8s.io containers ls -q)
    for id in $ids; do
        networks+=" $(ctr -a "$socket" -n k8s.io containers info "$id" | grep -o '/run/netns/cni-[^"]*' | sort -u || true)"
        ctr -a "$socket" -n k8s.io tasks kill --signal SIGKILL "$id" 2>/dev/null || true
    done
    for id in $ids; do
        ctr -a "$socket" -n k8s.io tasks rm -f "$id" >/dev/null 2>&1 || true
        within 10 "the end of $id" ctr -a "$socket" -n k8s.io containers rm "$id" || true
    done
    stop "$node-containerd"
    ip link del "cni-$node" 2>/dev/null || true
}

# Chains of the kubelets and the proxy, and those that the network plugin made for pods: these
# have the network's name in a comment.
drop_rules() {
    local table all ours
    for table in nat filter mangle; do
        all=$(iptables-save -t "$table")
        ours=$(grep -F 'name: \"rhumb\"' <<<"$all" | grep -o 'CNI-[0-9a-f]*' | sort -u || true)
        { grep -vF -e KUBE- ${ours:+-e "$ours"} <<<"$all" || true; } | iptables-restore -T "$table"
    done
}

mounts() { awk -v work="$work/" -v run="$run/" 'index($2, work) == 1 || index($2, run) == 1 { print $2 }' /proc/mounts; }

networks=""
for node in $(nodes_of); do end_containers "$node"; done
for part in "$work"/parts/*/; do stop "$(basename "$part")"; done
mounts | sort -r | while read -r mount; do umount -l "$mount" || true; done
for network in $networks; do
    umount -l "$network" 2>/dev/null || true
    rm -f "$network"
done
drop_rules
reconnect_pods
ip link del rhumb0 2>/dev/null || true
rm -rf "$work"/{parts,etcd,s3,s3-accounts,audit.log,argocd} "$work"/node*/{kubelet,logs,cni-ips,cni} "$run"
say "down"
