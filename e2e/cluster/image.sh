#!/usr/bin/env bash
# Makes an image out of a program and loads it into every node; no Docker, no base image.
#   image.sh WORK_FOLDER NAME PROGRAM      prints NAME:TAG, where the tag follows the content
#   image.sh WORK_FOLDER pause             the sandbox image, localhost/pause:1
set -euo pipefail
work=$1 name=$2
source "$(dirname "$0")/lib.sh"

pause() { # the process that holds a pod's namespaces
    printf '%s\n' '#include <signal.h>' '#include <sys/wait.h>' '#include <unistd.h>' \
        'static void bye(int s) { _exit(0); }' \
        'static void reap(int s) { while (waitpid(-1, 0, WNOHANG) > 0) {} }' \
        'int main(void) { signal(SIGTERM, bye); signal(SIGINT, bye); signal(SIGCHLD, reap); for (;;) pause(); }' \
        >"$1/pause.c"
    mkdir -p "$1/root/bin"
    gcc -static -O2 -o "$1/root/bin/pause" "$1/pause.c"
}

# archive FOLDER REFERENCE: an image of FOLDER/root in the form of `docker save`.  The same
# content gives the same bytes.
archive() {
    local folder=$1 reference=$2 layer config program user=65532:65532
    [ "$name" = pause ] && user=
    program=$(basename "$(find "$folder/root/bin" -type f)")
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$folder/root" -cf "$folder/layer.tar" .
    layer=$(sha256sum "$folder/layer.tar" | cut -d ' ' -f 1)
    printf '{"architecture":"%s","os":"linux","config":{"User":"%s","Entrypoint":["/bin/%s"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        "$(go_architecture)" "$user" "$program" "$layer" >"$folder/config.json"
    config=$(sha256sum "$folder/config.json" | cut -d ' ' -f 1)
    mv "$folder/config.json" "$folder/$config.json"
    printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$config" "$reference" >"$folder/manifest.json"
    tar -C "$folder" -cf "$folder/image.tar" manifest.json "$config.json" layer.tar
}

go_architecture() {
    case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) uname -m ;;
    esac
}

# load NODE REFERENCE ARCHIVE: and drop images of the same name that nothing runs.
load() {
    local socket old used
    socket=$(socket_of "$1")
    ctr -a "$socket" -n k8s.io images ls -q | grep -qxF "$2" ||
        ctr -a "$socket" -n k8s.io images import "$3" >/dev/null
    used=$(ctr -a "$socket" -n k8s.io containers ls | awk 'NR > 1 { print $2 }')
    for old in $(ctr -a "$socket" -n k8s.io images ls -q | grep -F "${2%:*}:" | grep -vxF "$2"); do
        grep -qxF "$old" <<<"$used" || ctr -a "$socket" -n k8s.io images rm "$old" >/dev/null
    done
}

mkdir -p "$work/images"
folder=$(mktemp -d "$work/images/.build.XXXXXX")
trap 'rm -rf "$folder"' EXIT
if [ "$name" = pause ]; then
    tag=1 reference=localhost/pause:1
else
    program=$(readlink -f "$3")
    tag=$(sha256sum "$program" | cut -c 1-12)
    reference="docker.io/library/$name:$tag"
fi
saved="$work/images/$name-$tag.tar"
if [ ! -f "$saved" ]; then
    if [ "$name" = pause ]; then
        pause "$folder"
    else
        strip -o "$folder/$name" "$program"
        "$root/scripts/rootfs.sh" "$folder/$name" "$folder/root"
    fi
    archive "$folder" "$reference"
    rm -f "$work/images/$name"-????????????.tar
    mv "$folder/image.tar" "$saved"
fi
for node in $(nodes_of); do load "$node" "$reference" "$saved"; done
echo "$name:$tag"
