#!/usr/bin/env bash
# Builds the wheel to ship. Its program is the one of `cargo dist`, linked statically, so that it runs with any C library, and
# the wheel says so.
#
#   usage: bash src/python/wheel.sh [FOLDER]      needs `pip install maturin wheel`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=${1:-target/wheels}

# Another OpenSSL than the one that is shipped could not be linked so.
unset OPENSSL_NO_VENDOR
maturin build --profile dist --target x86_64-unknown-linux-gnu --compatibility manylinux_2_17 --out "$folder" \
    --config "target.x86_64-unknown-linux-gnu.rustflags=['-Ctarget-feature=+crt-static']" --config "env.LIBZ_SYS_STATIC='1'"
# Once for all platforms: tags of both kinds.
for wheel in "$folder"/pyats_image_builder-*-py3-none-manylinux*.whl; do
    wheel tags --remove --platform-tag +musllinux_1_1_x86_64 "$wheel"
done
