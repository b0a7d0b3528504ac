#!/usr/bin/env bash
# Measures this tool against Debian's Buildah, and prints a table.
#
#   usage: bash tests/bench/run.sh [--docker] [OPTION...]   options of bench.py, such as --rounds 1 --packages requests
#
# --docker also measures the ancestor, with a Docker daemon that makes its bridge on this machine.
#
# Needs root, for Buildah's overlay storage, and a machine that does nothing else meanwhile. All is done on a new ext4 with a
# journal, in a file below TMPDIR, as most people's disks are: on ext4 without one, files are made slowly for minutes after
# others were removed, and the tool that comes second would pay for the first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. testdata/lib.sh

docker=
if [ "${1:-}" = --docker ]; then
    docker=1
    shift
fi
[ "$(id -u)" -eq 0 ] || die "the benchmark needs root
hint: run it with sudo"
need_compiler
need docker-registry:docker-registry skopeo:skopeo buildah:buildah crun:crun python3:python3 mkfs.ext4:e2fsprogs
cargo build --release --locked --bins --example export
release=$(realpath "${CARGO_TARGET_DIR:-target}/release")

place=$(mktemp -d "${TMPDIR:-/tmp}/bench.XXXXXX")
work=$place/disk
REGISTRY_PID=
DOCKER_PID=
stop() {
    [ -z "$DOCKER_PID" ] || { kill "$DOCKER_PID" && wait "$DOCKER_PID"; } 2>/dev/null || true
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
ancestor=()
if [ -n "$docker" ]; then
    need dockerd:docker.io
    python3 -m venv "$work/ancestor"
    "$work/ancestor/bin/pip" install --quiet pyats-image-builder==26.9
    export DOCKER_HOST=unix://$work/docker.socket
    dockerd --data-root "$work/docker" --exec-root "$work/docker-exec" --pidfile "$work/docker.pid" \
        --host "$DOCKER_HOST" >"$place/docker.log" 2>&1 </dev/null &
    DOCKER_PID=$!
    for _ in $(seq 100); do
        ! docker version >/dev/null 2>&1 || break
        sleep 0.3
    done
    docker version >/dev/null 2>&1 || { tail -5 "$place/docker.log" >&2; die "Docker's daemon did not start"; }
    ancestor=(--ancestor "$work/ancestor/bin/pyats-image-build")
fi
python3 tests/bench/bench.py "$release/pyats-image-build" "$release/examples/export" "$REGISTRY_PORT" "$work" "${ancestor[@]}" "$@"
