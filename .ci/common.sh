# shellcheck shell=sh
# common.sh -- what quickstart.sh and test.sh share: packages, builds, the model. Sourced, with the
# working directory at the root of the tree.

say() { printf '\n== %s\n' "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root or sudo to run: $*"
    fi
}

# need_packages [PACKAGE...]: installs what the build needs, and the packages named, where missing.
need_packages() {
    # python3-venv brings pip, which fetches models.
    set -- gcc libc6-dev cmake ninja-build pkg-config libcjson-dev liburing-dev libzstd-dev \
        libjs-dygraphs ca-certificates python3 python3-venv "$@"
    if ! command -v dpkg-query >/dev/null; then
        say "not Debian or Ubuntu; please have installed what these packages hold: $*"
        return
    fi
    missing=
    for package in "$@"; do
        case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
        *"ok installed") ;;
        *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    say "installing packages:$missing"
    as_root apt-get update -qq || die "apt-get update failed"
    # shellcheck disable=SC2086 # a list
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        $missing >/dev/null || die "could not install:$missing"
}

# build FOLDER TARGET [CMAKE-OPTION...]
build() {
    folder=$1 target=$2
    shift 2
    say "building $folder ($target)"
    if [ ! -f "$folder/CMakeCache.txt" ]; then set -- -G Ninja "$@"; fi
    cmake -S . -B "$folder" "$@" >"$folder.log" 2>&1 || {
        cat "$folder.log" >&2
        die "cmake failed"
    }
    rm -f "$folder.log"
    cmake --build "$folder" --target "$target" || die "the build failed"
}

# Prints the path of SmolLM2-135M-Instruct, fetched and verified unless it is there.
fetch_smollm2() {
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    if python3 -m pip --version >/dev/null 2>&1; then
        python3 tests/fixtures/fetch_models.py smollm2
    else
        venv=$(mktemp -d)
        python3 -m venv "$venv" && "$venv/bin/python" tests/fixtures/fetch_models.py smollm2
        status=$?
        rm -rf "$venv"
        return $status
    fi
}
