# What the scripts of this folder share.  Sourced, with $work set.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache="${RHUMB_CACHE:-$HOME/.cache/rhumb}"
# The control plane's address and the first node's; node n has .n.  No machine outside has
# a way to it.
address=10.250.0.1
# containerd's sockets: their path must be short.
run=/run/rhumb-e2e
# Of the bucket and the Secret that the samples name.
access_key=rhumb-e2e secret_key=rhumb-e2e-secret
other_access_key=rhumb-e2e-2 other_secret_key=rhumb-e2e-secret-2

say() { echo "cluster: $*" >&2; }

# within SECONDS WHAT COMMAND...: until it succeeds.
within() {
    local patience=$1 what=$2 begin=$SECONDS
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $((SECONDS - begin)) -lt "$patience" ] || {
            say "$what: not after $patience s"
            return 1
        }
        sleep 0.2
    done
}

nodes_of() { # the names of the nodes of a work folder
    local part
    for part in "$work"/parts/node*-kubelet; do
        [ -d "$part" ] && basename "$part" -kubelet
    done
    return 0
}

# A test that is killed in the middle of a fault leaves its rules: no pod would ever be reached
# again on this machine.
reconnect_pods() {
    iptables-save -t filter | sed -nE 's/^-A ((INPUT|FORWARD|OUTPUT) .*10\.244\..* -j DROP)$/\1/p' |
        while read -ra rule; do iptables -w -D "${rule[@]}"; done
}

socket_of() { echo "$run/$1/containerd.sock"; }
