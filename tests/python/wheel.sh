#!/usr/bin/env bash
# Prints the path of a wheel, for tests: with the program as it was compiled for them.
#
#   usage: bash tests/python/wheel.sh FOLDER     FOLDER keeps maturin and the wheel
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=$1/python
mkdir -p "$folder"

# Tests that want one at once wait for each other.
exec 9>"$folder/lock"
flock 9
if [ ! -x "$folder/tools/bin/maturin" ]; then
    python3 -m venv --clear "$folder/tools" >&2
    "$folder/tools/bin/pip" install --quiet 'maturin>=1.9,<2' >&2
fi
rm -rf "$folder/wheels"
# Libraries of this system stay where they are.
"$folder/tools/bin/maturin" build --profile dev --locked --compatibility linux --out "$folder/wheels" >&2
ls "$folder"/wheels/*.whl
