#!/usr/bin/env bash
# Installs what the tests need, and runs them all.
#
#   usage: bash tests/run.sh [--full] [FILTER...]
#
# --full adds the long ones (marked `#[ignore]`). FILTERs are parts of test names. As root, missing
# packages are installed, the tests run the tool as three kinds of user, and a test that has to be
# skipped is a failure; anybody else is told what is missing, and tests that only root can run are
# skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. testdata/lib.sh

full=
if [ "${1:-}" = --full ]; then
    full=1
    shift
fi

need_compiler
need docker-registry:docker-registry skopeo:skopeo curl:curl umoci:umoci crun:crun runc:runc buildah:buildah \
    newuidmap:uidmap busybox:busybox-static python3:python3 setpriv:util-linux useradd:passwd dpkg-deb:dpkg \
    openssl:openssl /etc/ssl/certs/ca-certificates.crt:ca-certificates
# Servers of sources, and proxies before them.
need sshd:openssh-server ssh-keygen:openssh-client ssh-agent:openssh-client git:git fcgiwrap:fcgiwrap \
    nginx:nginx-light tinyproxy:tinyproxy microsocks:microsocks vsftpd:vsftpd \
    /usr/lib/python3/dist-packages/pyftpdlib:python3-pyftpdlib \
    /usr/lib/python3/dist-packages/OpenSSL:python3-openssl
# The distribution's Python reads what the build file's printer writes; whichever comes first on the PATH
# makes a virtual environment for the ancestor.
need /usr/bin/python3:python3 /usr/lib/python3/dist-packages/yaml:python3-yaml
python3 -c 'import ensurepip, venv' 2>/dev/null || need /no/ensurepip:python3-venv
# One more oracle. Elsewhere than in CI nobody may want Docker's daemon, which this tool does without.
[ -z "${CI:-}" ] || [ "$(id -u)" -ne 0 ] || need dockerd:docker.io
[ "$(id -u)" -ne 0 ] || export REQUIRE_ALL=1

# A root file system of the musl kind, and newuidmap for containers.
[ -z "$full" ] || [ "$(id -u)" -ne 0 ] || need /lib/ld-musl-x86_64.so.1:musl setcap:libcap2-bin
# The long tests run with the OpenSSL that is shipped.
[ -n "$full" ] || system_openssl

# The base is made here, and not by whichever test comes first, so that no test's time includes it.
bash testdata/base/make.sh >/dev/null
say "compiling the tests"
cargo test --no-run --locked --quiet
say "running the tests (after $SECONDS s)"
if cargo nextest --version >/dev/null 2>&1; then
    # nextest leaves out the examples in the documentation.
    cargo test --doc --locked --quiet
    cargo nextest run --locked ${full:+--run-ignored all} "$@"
else
    # Builds share the machine, so more at once do not end earlier.
    cargo test --locked --no-fail-fast -- --test-threads 2 ${full:+--include-ignored} "$@"
fi
