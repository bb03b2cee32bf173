#!/usr/bin/env bash
# A node of the cluster: a containerd and a kubelet of its own, in cgroups of its own.
#   node.sh WORK_FOLDER PROGRAMS NUMBER      defines and starts it
set -euo pipefail
work=$1 programs=$2 number=$3
source "$(dirname "$0")/lib.sh"

node=node$number
home="$work/$node"
socket=$(socket_of "$node")
mkdir -p "$home/cni" "$home/kubelet" "$home/logs"

make_cgroups() {
    local group
    if [ -f /sys/fs/cgroup/cgroup.controllers ]; then # one tree
        for group in cpu cpuset memory pids io hugetlb; do
            echo "+$group" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
        done
        mkdir -p "/sys/fs/cgroup/rhumb-$node"
        return
    fi
    for group in /sys/fs/cgroup/*/; do
        [ -e "$group/cgroup.procs" ] && mkdir -p "$group/rhumb-$node"
    done
    [ -d /sys/fs/cgroup/cpuset ] || return 0
    for group in cpus mems; do
        cat "/sys/fs/cgroup/cpuset/cpuset.$group" >"/sys/fs/cgroup/cpuset/rhumb-$node/cpuset.$group"
    done
}

network() {
    cat <<J
{"cniVersion": "0.4.0", "name": "rhumb", "plugins": [
  {"type": "bridge", "bridge": "cni-$node", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$home/cni-ips", "ranges": [[{"subnet": "10.244.$number.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
J
}

containerd() {
    cat <<C
version = 2
root = "$home/containerd"
state = "$run/$node"
[grpc]
  address = "$socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Without CAP_SYS_RESOURCE no oom score below our own can be set, and pods fail with
  # "can't get final child's PID from pipe: EOF".
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$home/cni"
C
}

kubelet() {
    cat <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 10.250.0.$number
healthzPort: $((10347 + number))
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $work/pki/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /rhumb-$node
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://$socket
clusterDNS: [$address]
clusterDomain: cluster.local
tlsCertFile: $work/pki/$node.crt
tlsPrivateKeyFile: $work/pki/$node.key
resolvConf: /dev/null
# Each kubelet clears away what it does not know.
podLogsDir: $home/logs
# A share of the disk would be gigabytes, and a full build leaves less: no pod would start.
evictionHard: {memory.available: 200Mi, nodefs.available: 200Mi, imagefs.available: 200Mi}
imageGCHighThresholdPercent: 100
# A node that is lost is noticed in seconds.
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 8
# Tests kill containers again and again: each is started at once.
featureGates: {KubeletCrashLoopBackOffMax: true}
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
C
}

define() { "$here/part.sh" "$work" define "$@"; }

make_cgroups
network >"$home/cni/10.conflist"
containerd >"$home/containerd.toml"
kubelet >"$home/kubelet.yaml"
define "$node-containerd" containerd --config "$home/containerd.toml"
define "$node-kubelet" "$programs/kubelet" --config="$home/kubelet.yaml" --kubeconfig="$work/$node.conf" \
    --hostname-override="$node" --node-ip="10.250.0.$number" --root-dir="$home/kubelet"
"$here/part.sh" "$work" start "$node-containerd"
within 20 "containerd of $node" test -S "$socket"
"$here/part.sh" "$work" start "$node-kubelet"
