#!/usr/bin/env bash
# A real Kubernetes on this one machine, with an S3 server beside it and Rhumb's operator in
# it.  Run again, it starts what does not run, loads images that changed and upgrades the
# operator.
#   up.sh [WORK_FOLDER]
# RHUMB_BIN: the data node's program; RHUMB_OPERATOR_BIN: the operator's.
# RHUMB_NODES=2: how many nodes.  RHUMB_AUDIT=1: what accounts do is written to audit.log.
set -euo pipefail
[ "$(id -u)" = 0 ] || {
    echo "a cluster on this machine needs root: give any other one by KUBECONFIG" >&2
    exit 3
}
work=${1:-${RHUMB_CLUSTER:-${RHUMB_CACHE:-$HOME/.cache/rhumb}/cluster}}
mkdir -p "$work"
work=$(cd "$work" && pwd)
source "$(dirname "$0")/lib.sh"
: "${RHUMB_BIN:?the data node\'s program}" "${RHUMB_OPERATOR_BIN:?the operator\'s program}"
nodes=${RHUMB_NODES:-2}
export KUBECONFIG=$work/admin.conf

trap 'say "failed; each process has its log in $work/parts/NAME/log"' ERR
programs=$("$here/build.sh")
tools=$(dirname "$programs")
kubectl=$programs/kubectl
"$here/packages.sh"

define() { "$here/part.sh" "$work" define "$@"; }
start() { "$here/part.sh" "$work" start "$1"; }

addresses() {
    local number
    # An empty bridge carries them: not every kernel has a dummy link.
    ip link add rhumb0 type bridge 2>/dev/null || true
    ip link set rhumb0 up
    # What no Service or pod has at the moment goes nowhere, and not to a stranger outside.
    ip route replace 10.96.0.0/16 dev rhumb0
    ip route replace 10.244.0.0/16 dev rhumb0
    reconnect_pods
    for number in $(seq "$nodes"); do ip addr replace "10.250.0.$number/32" dev rhumb0; done
    sysctl -qw net.ipv4.ip_forward=1
    sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true
}

control_plane() {
    local etcd=127.0.0.1:23790
    define etcd "$tools/etcd" --data-dir "$work/etcd" --listen-client-urls "http://$etcd" \
        --advertise-client-urls "http://$etcd" --listen-peer-urls http://127.0.0.1:23800 --unsafe-no-fsync
    local audit=()
    if [ -n "${RHUMB_AUDIT:-}" ]; then
        audited >"$work/audit.yaml"
        audit=(--audit-policy-file="$work/audit.yaml" --audit-log-path="$work/audit.log" --audit-log-maxsize=4000)
    fi
    # Pods of a lost node are replaced in seconds, not in five minutes.
    define apiserver "$programs/kube-apiserver" --etcd-servers="http://$etcd" --bind-address="$address" \
        --secure-port=6443 --advertise-address="$address" --service-cluster-ip-range=10.96.0.0/16 --allow-privileged=true \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --client-ca-file="$work/pki/ca.crt" \
        --tls-cert-file="$work/pki/apiserver.crt" --tls-private-key-file="$work/pki/apiserver.key" \
        --kubelet-client-certificate="$work/pki/admin.crt" --kubelet-client-key="$work/pki/admin.key" \
        --kubelet-preferred-address-types=InternalIP --service-account-key-file="$work/pki/sa.pub" \
        --service-account-signing-key-file="$work/pki/sa.key" \
        --service-account-issuer=https://kubernetes.default.svc \
        --default-unreachable-toleration-seconds=10 --default-not-ready-toleration-seconds=10 "${audit[@]}"
    local kubeconfig=$work/controllers.conf
    define controllers "$programs/kube-controller-manager" --kubeconfig="$kubeconfig" --authentication-kubeconfig="$kubeconfig" \
        --authorization-kubeconfig="$kubeconfig" --service-account-private-key-file="$work/pki/sa.key" \
        --root-ca-file="$work/pki/ca.crt" --cluster-signing-cert-file="$work/pki/ca.crt" \
        --cluster-signing-key-file="$work/pki/ca.key" --use-service-account-credentials --leader-elect=false \
        --bind-address=127.0.0.1 --node-monitor-period=1s --node-monitor-grace-period=20s
    kubeconfig=$work/scheduler.conf
    define scheduler "$programs/kube-scheduler" --kubeconfig="$kubeconfig" --authentication-kubeconfig="$kubeconfig" \
        --authorization-kubeconfig="$kubeconfig" --leader-elect=false --bind-address=127.0.0.1
    define coredns "$tools/coredns" -conf "$work/Corefile"
    define proxy "$programs/kube-proxy" --config="$work/proxy.yaml"
    names >"$work/Corefile"
    services >"$work/proxy.yaml"
    start etcd
    start apiserver
    within 60 "the API server" "$kubectl" get --raw /readyz
    # Before the API server is ready they would end.
    for part in controllers scheduler coredns proxy; do start "$part"; done
}

# Of roles also the rules: what the operator gives to data nodes.
audited() {
    cat <<C
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, userGroups: ["system:serviceaccounts:kube-system"]}
- {level: Request, userGroups: ["system:serviceaccounts"], resources: [{group: rbac.authorization.k8s.io, resources: [roles]}]}
- {level: Metadata, userGroups: ["system:serviceaccounts"]}
- {level: None}
C
}

names() {
    cat <<C
.:53 {
    bind $address
    errors
    kubernetes cluster.local in-addr.arpa {
        kubeconfig $work/admin.conf rhumb-e2e
        pods insecure
    }
    cache 2
}
C
}

services() {
    cat <<C
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: $work/proxy.conf}
hostnameOverride: node1
clusterCIDR: 10.244.0.0/16
healthzBindAddress: 127.0.0.1:10256
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
C
}

s3() {
    mkdir -p "$work/s3/rhumb" "$work/s3-accounts"
    [ -f "$work/s3-accounts/users.json" ] ||
        printf '{"accessAccounts":{"%s":{"access":"%s","secret":"%s","role":"admin"}}}' \
            "$other_access_key" "$other_access_key" "$other_secret_key" >"$work/s3-accounts/users.json"
    define s3 "$tools/versitygw" --port "$address:9000" --access "$access_key" --secret "$secret_key" \
        --region us-east-1 --iam-dir "$work/s3-accounts" posix "$work/s3"
    start s3
    # What the samples name: http://s3.s3.svc:9000 and a Secret.
    "$kubectl" create namespace s3 --dry-run=client -o yaml | "$kubectl" apply -f -
    "$kubectl" create secret generic s3-credentials --dry-run=client -o yaml \
        --from-literal=access-key-id="$access_key" --from-literal=secret-access-key="$secret_key" | "$kubectl" apply -f -
    "$kubectl" apply -f - <<Y
apiVersion: v1
kind: Service
metadata: {name: s3, namespace: s3}
spec: {ports: [{name: s3, port: 9000}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s3, namespace: s3, labels: {kubernetes.io/service-name: s3}}
addressType: IPv4
ports: [{name: s3, port: 9000}]
endpoints: [{addresses: [$address], conditions: {ready: true}}]
Y
} >/dev/null

# What a cluster that is taken down would take with it.
tell_why() {
    df -h "$work"
    "$kubectl" describe nodes | sed -n '/^Name:/p; /^Taints:/p; /^Conditions:/,/^Addresses:/p'
    "$kubectl" -n rhumb-system get pods -o wide
    "$kubectl" -n rhumb-system get events --sort-by=.lastTimestamp | tail -20
    "$kubectl" -n rhumb-system logs deployment/rhumb-operator --tail=20
} >&2

operator() {
    local helm operator data_node
    helm=$("$root/scripts/helm.sh")
    operator=$("$here/image.sh" "$work" rhumb-operator "$RHUMB_OPERATOR_BIN")
    data_node=$("$here/image.sh" "$work" rhumb "$RHUMB_BIN")
    "$helm" upgrade --install rhumb-crds "$root/charts/rhumb-crds" --namespace default >/dev/null
    "$helm" upgrade --install rhumb "$root/charts/rhumb" --namespace rhumb-system --create-namespace \
        --set "image.operator=$operator,image.dataNode=$data_node,image.pullPolicy=Never" >/dev/null
    "$kubectl" -n rhumb-system rollout status deployment/rhumb-operator --timeout=120s >/dev/null || {
        tell_why
        return 1
    }
    say "$operator runs; new databases get $data_node"
}

"$here/pki.sh" "$work" "$programs" "$nodes"
addresses
control_plane
for number in $(seq "$nodes"); do "$here/node.sh" "$work" "$programs" "$number"; done
"$here/image.sh" "$work" pause >/dev/null
within 60 "all nodes Ready" "$kubectl" wait --for=condition=Ready nodes --all --timeout=1s
s3
operator
say "up: export KUBECONFIG=$KUBECONFIG"
