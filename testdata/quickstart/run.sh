#!/usr/bin/env bash
# Builds the tool, builds an image with it and runs a job in that image.
#
#   usage: bash testdata/quickstart/run.sh [OPTION...]     options of the build, such as -v
#
# Needs neither Docker nor root: root installs missing packages, anybody else is told their names. The
# image is built upon Docker Hub's python:3.11-slim, or upon a stand-in from Debian's packages where
# Docker Hub does not answer. PYATS_IMAGE_BUILD names a program to use instead of building one;
# QUICKSTART_BASE names another base. All else that this script makes is gone at its end, but for
# Cargo's folder and the stand-in.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. testdata/lib.sh

work=$(mktemp -d "${TMPDIR:-/tmp}/quickstart.XXXXXX")
REGISTRY_PID=
stop() {
    [ -z "$REGISTRY_PID" ] || { kill "$REGISTRY_PID" && wait "$REGISTRY_PID"; } 2>/dev/null || true
    remove "$work"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
part() { say "== $* (after $SECONDS s)"; }

tool=${PYATS_IMAGE_BUILD:-}
if [ -z "$tool" ]; then
    part "building pyats-image-build"
    need_compiler
    cargo build --release --locked
    tool=${CARGO_TARGET_DIR:-target}/release/pyats-image-build
fi
[ -x "$tool" ] || die "$tool is not a program"
tool=$(realpath "$tool")

# A user without subordinate ids does without newuidmap, and the tool does too.
need python3:python3 /etc/ssl/certs/ca-certificates.crt:ca-certificates
base=()
if [ -n "${QUICKSTART_BASE:-}" ]; then
    base=(--base "$QUICKSTART_BASE")
elif ! timeout 5 testdata/quickstart/answers.py https://registry-1.docker.io/v2/; then
    part "Docker Hub does not answer, so a stand-in is served instead"
    need docker-registry:docker-registry skopeo:skopeo
    layout=$(bash testdata/base/make.sh)
    serve_registry "$work/registry"
    reference=localhost:$REGISTRY_PORT/library/python:3.11-slim
    skopeo --insecure-policy copy --quiet --dest-tls-verify=false \
        "oci:$layout:3.11-slim" "docker://$reference"
    base=(--base "$reference")
fi

part "building the image"
export PYATS_IMAGE_BUILD_STORE=$work/store
"$tool" testdata/quickstart/build.yaml -t quickstart:latest \
    --output "oci-dir:$work/quickstart" "${base[@]}" "$@" >"$work/reference"
say "the image: $(cat "$work/reference")"

part "running the job in the image"
"$tool" run --rm quickstart:latest python hello_job.py
part "done"
