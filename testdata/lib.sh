# Shell functions that the scripts of this repository share. Source it; it runs nothing by itself.

# Lines about what a script does go to standard error: standard output is for results.
say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# need PROGRAM:PACKAGE... makes sure that the programs are there. Root gets what is missing from the
# distribution; anybody else is told what to ask for. PROGRAM may be a path of a file.
need() {
    local pair program missing=()
    # Administrators' programs (runc, nginx) are not on everybody's PATH.
    PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
    for pair in "$@"; do
        program=${pair%%:*}
        case $program in
            /*) [ -e "$program" ] || missing+=("${pair#*:}") ;;
            *) command -v "$program" >/dev/null 2>&1 || missing+=("${pair#*:}") ;;
        esac
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        die "these packages are missing, and only root can install them: ${missing[*]}
hint: ask an administrator for: apt-get install ${missing[*]}"
    fi
    command -v apt-get >/dev/null 2>&1 ||
        die "these programs are missing, and this system has no apt-get to install them with: ${missing[*]}"
    say "installing ${missing[*]}"
    install_packages "${missing[@]}"
}

# The package lists of a new machine are empty or old, so they are fetched when the first try fails.
install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    local log
    log=$(mktemp)
    if ! apt-get install -y -qq --no-install-recommends "$@" >"$log" 2>&1 </dev/null; then
        { apt-get update -qq || true
          apt-get install -y -qq --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null ||
            { cat "$log" >&2; rm -f "$log"; die "apt-get could not install $*"; }
    fi
    rm -f "$log"
}

# What compiling needs.
need_compiler() {
    need cc:gcc /usr/include/stdio.h:libc6-dev make:make perl:perl
    command -v cargo >/dev/null 2>&1 || die "cargo is missing
hint: install Rust (the version that Cargo.toml names, or newer), or name a built program in PYATS_IMAGE_BUILD"
}

# The distribution's OpenSSL is linked if it is there: compiling one takes minutes.
system_openssl() {
    [ "$(id -u)" -ne 0 ] || need pkg-config:pkg-config /usr/include/openssl/ssl.h:libssl-dev
    ! pkg-config --exists openssl 2>/dev/null || export OPENSSL_NO_VENDOR=1
}

# serve_registry DIRECTORY starts Debian's docker-registry with its data in DIRECTORY on a free port of
# the loopback interface; sets REGISTRY_PID and REGISTRY_PORT.
serve_registry() {
    local directory=$1 try
    mkdir -p "$directory/data"
    cat >"$directory/config.yml" <<END
version: 0.1
log:
  level: info
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: $directory/data
http:
  addr: 127.0.0.1:0
END
    docker-registry serve "$directory/config.yml" >"$directory/log" 2>&1 </dev/null &
    REGISTRY_PID=$!
    REGISTRY_PORT=
    for try in $(seq 100); do
        REGISTRY_PORT=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$directory/log")
        [ -n "$REGISTRY_PORT" ] && return 0
        kill -0 "$REGISTRY_PID" 2>/dev/null || break
        sleep 0.1
    done
    cat "$directory/log" >&2
    die "docker-registry did not start"
}

# Removes directories, also with files of subordinate ids in them, which their user can only remove
# from inside a user namespace.
remove() {
    rm -rf "$@" 2>/dev/null ||
        unshare --user --map-root-user --map-auto rm -rf "$@" 2>/dev/null ||
        { chmod -R u+rwX "$@" 2>/dev/null; rm -rf "$@"; }
}
