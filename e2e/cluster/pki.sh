#!/usr/bin/env bash
# Keys and certificates of the cluster, and a kubeconfig for everybody who has one.
#   pki.sh WORK_FOLDER PROGRAMS NODES        makes what is missing
set -euo pipefail
work=$1 programs=$2 nodes=$3
source "$(dirname "$0")/lib.sh"
mkdir -p "$work/pki"
cd "$work/pki"

# certificate NAME SUBJECT [EXTENSIONS]
certificate() {
    local extensions=${3:-extendedKeyUsage=clientAuth}
    openssl req -new -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2" 2>/dev/null
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out "$1.crt" \
        -extfile <(printf '%b' "$extensions") 2>/dev/null
}

kubeconfig() { # NAME
    local config=(env "KUBECONFIG=$work/$1.conf" "$programs/kubectl" config)
    "${config[@]}" set-cluster rhumb-e2e --server="https://$address:6443" --certificate-authority=ca.crt --embed-certs
    "${config[@]}" set-credentials "$1" --client-certificate="$1.crt" --client-key="$1.key" --embed-certs
    "${config[@]}" set-context rhumb-e2e --cluster=rhumb-e2e --user="$1"
    "${config[@]}" use-context rhumb-e2e
} >/dev/null

client() { # NAME SUBJECT [EXTENSIONS]
    [ -f "$work/$1.conf" ] && return
    certificate "$@"
    kubeconfig "$1"
}

if [ ! -f ca.crt ]; then
    openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=rhumb-e2e-ca -days 365 2>/dev/null
    openssl genrsa -out sa.key 2048 2>/dev/null
    openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
    names=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
    certificate apiserver /CN=kube-apiserver \
        "subjectAltName=IP:$address,IP:10.96.0.1,$names\nextendedKeyUsage=serverAuth,clientAuth"
fi
client admin /O=system:masters/CN=admin
client controllers /CN=system:kube-controller-manager
client scheduler /CN=system:kube-scheduler
client proxy /CN=system:kube-proxy
for number in $(seq "$nodes"); do
    client "node$number" "/O=system:nodes/CN=system:node:node$number" \
        "subjectAltName=IP:10.250.0.$number,DNS:node$number\nextendedKeyUsage=serverAuth,clientAuth"
done
