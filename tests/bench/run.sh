#!/usr/bin/env bash
# Measures this tool against Debian's Buildah, and prints a table.
#
#   usage: bash tests/bench/run.sh [OPTION...]     options of bench.py, such as --rounds 1 --packages requests
#
# Needs root, for Buildah's overlay storage, and a machine that does nothing else meanwhile.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. testdata/lib.sh

[ "$(id -u)" -eq 0 ] || die "the benchmark needs root
hint: run it with sudo"
need_compiler
need docker-registry:docker-registry skopeo:skopeo buildah:buildah crun:crun python3:python3
cargo build --release --locked
tool=$(realpath "${CARGO_TARGET_DIR:-target}/release/pyats-image-build")

work=$(mktemp -d "${TMPDIR:-/tmp}/bench.XXXXXX")
REGISTRY_PID=
stop() {
    [ -z "$REGISTRY_PID" ] || { kill "$REGISTRY_PID" && wait "$REGISTRY_PID"; } 2>/dev/null || true
    remove "$work"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
layout=$(bash testdata/base/make.sh)
serve_registry "$work/registry"
skopeo --insecure-policy copy --quiet --dest-tls-verify=false \
    "oci:$layout:3.11-slim" "docker://localhost:$REGISTRY_PORT/library/python:3.11-slim"
python3 tests/bench/bench.py "$tool" "$REGISTRY_PORT" "$work" "$@"
