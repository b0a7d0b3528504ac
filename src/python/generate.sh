#!/usr/bin/env bash
# Writes the completion scripts and manual pages that the wheel carries, as the program prints them.
#
#   usage: bash src/python/generate.sh PROGRAM [FOLDER]
set -euo pipefail
program=$1
# As maturin wants it: what lies in `data` goes to the prefix.
share=${2:-$(dirname "${BASH_SOURCE[0]}")/data}/data/share

rm -rf "$share"
mkdir -p "$share"/{man/man1,bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
"$program" completions bash >"$share/bash-completion/completions/pyats-image-build"
"$program" completions zsh >"$share/zsh/site-functions/_pyats-image-build"
"$program" completions fish >"$share/fish/vendor_completions.d/pyats-image-build.fish"
"$program" man >"$share/man/man1/pyats-image-build.1"
# A manual page refers to those of the commands.
sed -n 's/^pyats\\-image\\-build\\-\([a-z]*\)(1)$/\1/p' "$share/man/man1/pyats-image-build.1" | while read -r command; do
    [ "$command" = help ] || "$program" man "$command" >"$share/man/man1/pyats-image-build-$command.1"
done
