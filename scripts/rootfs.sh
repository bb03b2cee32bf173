#!/usr/bin/env bash
# Lays out an image's file system: one program, the shared libraries it names, roots of
# trust and a user.  No shell, no package manager, no base image.
#   rootfs.sh PROGRAM FOLDER
# The Dockerfiles use it, and so can anything that makes images without Docker:
#   buildah from scratch; buildah copy …; buildah config --user 65532 --entrypoint '["/bin/NAME"]' …
set -euo pipefail
program=$(readlink -f "$1") root=$2

mkdir -p "$root"/{bin,etc/ssl/certs,tmp}
cp "$program" "$root/bin/"
# Both the libraries and the loader; a static program has neither.
{ ldd "$program" 2>/dev/null || true; } | grep -o '/[^ ]*' | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf 'nonroot:x:65532:65532::/tmp:/sbin/nologin\n' >"$root/etc/passwd"
printf 'nonroot:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
chmod 1777 "$root/tmp"
