#!/usr/bin/env bash
# Measures this tool against Debian's Buildah, and prints a table.
#
#   usage: bash tests/bench/run.sh [OPTION...]     options of bench.py, such as --rounds 1 --packages requests
#
# Needs root, for Buildah's overlay storage, and a machine that does nothing else meanwhile. All is done on a new ext4 with a
# journal, in a file below TMPDIR, as most people's disks are: on ext4 without one, files are made slowly for minutes after
# others were removed, and the tool that comes second would pay for the first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. testdata/lib.sh

[ "$(id -u)" -eq 0 ] || die "the benchmark needs root
hint: run it with sudo"
need_compiler
need docker-registry:docker-registry skopeo:skopeo buildah:buildah crun:crun python3:python3 mkfs.ext4:e2fsprogs
cargo build --release --locked --bins --example export
release=$(realpath "${CARGO_TARGET_DIR:-target}/release")

place=$(mktemp -d "${TMPDIR:-/tmp}/bench.XXXXXX")
work=$place/disk
REGISTRY_PID=
stop() {
    [ -z "$REGISTRY_PID" ] || { kill "$REGISTRY_PID" && wait "$REGISTRY_PID"; } 2>/dev/null || true
    ! mountpoint -q "$work" || umount --recursive "$work"
    remove "$place"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir "$work"
truncate -s 40G "$place/image"
mkfs.ext4 -q -F -m 0 "$place/image"
mount -o loop "$place/image" "$work"
layout=$(bash testdata/base/make.sh)
serve_registry "$work/registry"
skopeo --insecure-policy copy --quiet --dest-tls-verify=false \
    "oci:$layout:3.11-slim" "docker://localhost:$REGISTRY_PORT/library/python:3.11-slim"
python3 tests/bench/bench.py "$release/pyats-image-build" "$release/examples/export" "$REGISTRY_PORT" "$work" "$@"
