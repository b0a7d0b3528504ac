# Installs Debian packages. $1 is `usual` if nobody asked for these by name: then one that the suite
# lacks is left out, and the tool makes a warning of the line that says so.
set -eu
asked=$1
shift
fail() { echo "error: $*" >&2; exit 100; }
command -v apt-get >/dev/null && command -v dpkg >/dev/null ||
    fail "this base is no Debian: write \`system-packages: []\`, and use a base that has what you need"

export DEBIAN_FRONTEND=noninteractive
work=$(mktemp -d /tmp/packages.XXXXXX)
trap 'rm -rf "$work"' EXIT
# apt has no other way to be told all of this than a file or many options.
export APT_CONFIG="$work/apt.conf"
{
    # Its own user may not be there, and has no rights to win here.
    echo 'APT::Sandbox::User "root";'
    echo 'APT::Install-Recommends "false";'
    echo 'APT::Install-Suggests "false";'
    echo 'APT::Keep-Downloaded-Packages "false";'
    echo 'Acquire::Languages "none";'
    echo 'Acquire::Retries "3";'
    echo 'Dpkg::Use-Pty "false";'
    echo 'Dpkg::Options { "--force-confold"; };'
    [ -z "${SSL_CERT_FILE:-}" ] || echo "Acquire::https::CAInfo \"$SSL_CERT_FILE\";"
} >"$APT_CONFIG"

# What is past its end of life lies on another server, where no list is renewed any more and so all are
# out of date. Signatures are verified as ever.
archive() {
    mkdir "$work/parts"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        [ -f "$file" ] || continue
        to="$work/parts/$(basename "$file")"
        sed -E -e 's#https?://(deb|ftp[.a-z]*|security|httpredir|cdn-fastly\.deb|snapshot)\.debian\.org/debian-security#http://archive.debian.org/debian-security#g' \
            -e 's#https?://security\.debian\.org/?([[:space:]]|$)#http://archive.debian.org/debian-security\1#g' \
            -e 's#https?://(deb|ftp[.a-z]*|httpredir|cdn-fastly\.deb)\.debian\.org/debian#http://archive.debian.org/debian#g' \
            -e '/^[[:space:]]*deb(-src)?[[:space:]].*-(updates|backports)([[:space:]]|$)/d' \
            -e '/^Suites:/s/[[:space:]][a-z]+-(updates|backports)([[:space:]]|$)/\2/g' "$file" >"$to"
    done
    {
        echo "Dir::Etc::SourceList \"/dev/null\";"
        echo "Dir::Etc::SourceParts \"$work/parts\";"
        echo 'Acquire::Check-Valid-Until "false";'
    } >>"$APT_CONFIG"
    echo "packages come from archive.debian.org, since $codename is past its end of life:"
    cat "$work/parts"/*
}
update() {
    # Lists that cannot be fetched are only a warning to apt, and then packages seem to be missing.
    apt-get update -o APT::Update::Error-Mode=any 2>&1 | tee "$work/update" >&2
    ! grep -qE '^(E|Err)' "$work/update" && ! grep -q '^W: Failed to fetch' "$work/update"
}
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$codename" ] || codename=$(. /etc/os-release && echo "${VERSION:-}" | sed -n 's/.*(\(.*\)).*/\1/p')
case $codename in
    wheezy | jessie | stretch | buster) archive ;;
esac
if ! update; then
    if [ ! -e "$work/parts" ] && grep -qE '404|does not have a Release file' "$work/update"; then
        archive
        update || fail "the package lists cannot be fetched"
    elif grep -qE 'EXPKEYSIG|NO_PUBKEY|not signed|KEYEXPIRED' "$work/update"; then
        fail "the package lists are not signed by a key that this base trusts today: use a newer base (\`--base\`), or write \`system-packages: []\`"
    else
        fail "the package lists cannot be fetched"
    fi
fi
grep -qE '^(Get|Hit)' "$work/update" ||
    fail "this base names no package sources: use another base, or write \`system-packages: []\`"

if [ "$asked" = usual ]; then
    found=
    for name; do
        if apt-cache show --no-all-versions "$name" >/dev/null 2>&1; then
            found="$found $name"
        else
            echo "left out: $name is not in $codename" >&2
        fi
    done
    # Names of packages have no blanks.
    set -- $found
fi
[ $# -eq 0 ] || apt-get install -y --no-install-recommends "$@"
# Layers of this tool hold none of this in any case; those of the generated Dockerfile would.
apt-get clean
for file in /var/lib/apt/lists/*; do
    [ ! -f "$file" ] || rm -f "$file"
done
