#!/usr/bin/env bash
# Makes a stand-in for the image `python:3.11-slim` out of Debian's packages, as an OCI image layout
# with the tag `3.11-slim`, and prints the layout's directory.
#
#   usage: testdata/base/make.sh [DIRECTORY]
#
# Without DIRECTORY the layout is made once for each user and kept in the cache folder. No step needs
# privileges: apt downloads into folders of its own, and assemble.py merges the packages' archives into
# layers. So root, a user with subordinate ids and a user without all get the same bytes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../lib.sh"

need apt-get:apt dpkg-deb:dpkg python3:python3 sha256sum:coreutils flock:util-linux

# A stand-in of an older recipe is not used again.
recipe=$(cat "$here/make.sh" "$here/assemble.py" | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/pyats-image-builder-testbase
target=${1:-$cache/$recipe}
if [ -e "$target/index.json" ]; then
    printf '%s\n' "$target"
    exit 0
fi

mkdir -p "$(dirname "$target")"
# Two at once: the second waits, and finds what the first has made.
exec 9>"$target.lock"
flock 9
if [ -e "$target/index.json" ]; then
    printf '%s\n' "$target"
    exit 0
fi

work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# The release with Python 3.11, from wherever this machine gets its packages.
release=bookworm
say "making a python:3.11-slim stand-in from Debian's packages (once, about half a minute)"
mkdir -p "$work"/state/lists/partial "$work"/cache/archives/partial "$work"/parts
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
options="[target=Packages] "
[ -r "$keyring" ] && options="[target=Packages signed-by=$keyring] "
apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v r="$release" -v o="$options" '
        $3 == "main" && ($2 == r || $2 == r "-updates" || $2 == r "-security") {
            print "deb " o $1 " " $2 " main" }' | sort -u >"$work/sources.list"
[ -s "$work/sources.list" ] ||
    die "this machine's apt sources have no Debian $release, which the stand-in is made from
hint: add the release to /etc/apt/sources.list, or use a machine that reaches Docker Hub"

: >"$work/state/status"
cat >"$work/apt.conf" <<END
Dir::State "$work/state";
Dir::State::status "$work/state/status";
Dir::Cache "$work/cache";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "$work/parts";
Dir::Etc::preferencesparts "$work/parts";
Dir::Log "$work";
APT::Sandbox::User "root";
APT::Get::Assume-Yes "true";
APT::Install-Recommends "false";
APT::Keep-Downloaded-Packages "true";
Acquire::Languages "none";
Acquire::Retries "3";
Debug::NoLocking "true";
# Hooks of the machine's own package management.
#clear APT::Update;
#clear DPkg;
END
apt() { apt-get -qq -c "$work/apt.conf" "$@" >"$work/apt.log" 2>&1 </dev/null || { cat "$work/apt.log" >&2; return 1; }; }
# fetch NAME PACKAGE... downloads PACKAGEs with all they need, and lists what is new in the file NAME.layer.
fetch() {
    local name=$1
    shift
    apt install --download-only "$@" || die "apt-get could not download $*"
    (cd "$work/cache/archives" && ls -1 ./*.deb) | sort >"$work/$name.all"
    touch "$work/taken"
    comm -13 "$work/taken" "$work/$name.all" >"$work/$name.layer"
    mv "$work/$name.all" "$work/taken"
}
apt update || die "apt-get could not fetch the package lists"
fetch 1 '?essential' apt debconf
fetch 2 '?essential' apt debconf python3 python3-venv ca-certificates netbase

python3 "$here/assemble.py" "$work/cache/archives" "$work/layout" "$work/1.layer" "$work/2.layer"
mv -T "$work/layout" "$target"
printf '%s\n' "$target"
