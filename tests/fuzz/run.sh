#!/usr/bin/env bash
# Fuzzes a reader of what others write, with coverage feedback, by libFuzzer and the stable compiler.
#
#   usage: bash tests/fuzz/run.sh TARGET [LIBFUZZER-OPTION...]
#
# TARGET is one of fuzz_targets/. It runs until it finds something or is interrupted; `-max_total_time=600` ends it after
# ten minutes. FUZZ_DIR (target/fuzz) takes the program, the corpus and what was found. The seeds are not changed.
# `cargo fuzz run --fuzz-dir tests/fuzz TARGET` works too, with a nightly compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../../testdata/lib.sh

target=${1:-}
if [ ! -f "fuzz_targets/$target.rs" ]; then
    say "usage: bash tests/fuzz/run.sh TARGET [LIBFUZZER-OPTION...]; a TARGET is one of:"
    (cd fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//') >&2
    exit 2
fi
shift

need_compiler
system_openssl
need g++:g++
directory=${FUZZ_DIR:-$PWD/../../target/fuzz}
mkdir -p "$directory/corpus/$target" "$directory/found/$target"
# The same dependencies as the tool's.
cp ../../Cargo.lock Cargo.lock

# What cargo-fuzz passes to a nightly compiler, but for the sanitizer, which there is little to find for in safe code.
RUSTFLAGS="-Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    RUSTFLAGS+=" -Cllvm-args=-sanitizer-coverage-$option"
done
export RUSTFLAGS
# Named, so that programs which run while it is built are not instrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --quiet --release --target "$host" --target-dir "$directory/target" --bin "$target"

# The words of the seeds, which tell of keys and directives.
grep -ahoE '[A-Za-z_@][A-Za-z0-9_./:-]{2,40}' "seeds/$target"/* | sort -u | sed 's/.*/"&"/' >"$directory/$target.dict"
# Layers are unpacked, best in memory.
[ ! -w /dev/shm ] || export TMPDIR=${TMPDIR:-/dev/shm}
exec "$directory/target/$host/release/$target" -artifact_prefix="$directory/found/$target/" \
    -dict="$directory/$target.dict" -rss_limit_mb=2000 -timeout=10 "$@" "$directory/corpus/$target" "seeds/$target"
