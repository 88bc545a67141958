#!/bin/sh
# peers.sh -- builds llama.cpp, natively and outside the tree, to be measured beside ttx.
#
#   bench/peers.sh        prints the path of its llama-bench
#
# The source is the one that PyPI's llama-cpp-python 0.3.36 carries. All of its CPU variants are
# built; llama.cpp chooses among them at start. They and llama-bench, llama-completion and
# llama-perplexity go to ${TTX_CACHE:-~/.cache/ttx}/peers/llama.cpp; nothing is done again while
# this script stays as it is. Takes 7 minutes on two free cores. Needs g++, cmake, ninja and Python
# with pip or venv.
set -eu

version=0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
tools="llama-bench llama-completion llama-perplexity"

say() { printf 'peers.sh: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# Runs a command quietly; its output is shown if it fails.
quietly() {
    "$@" >"$work/log" 2>&1 || {
        tail -n 40 "$work/log" >&2
        die "failed: $*"
    }
}

peers=${TTX_CACHE:-$HOME/.cache/ttx}/peers
dest=$peers/llama.cpp
stamp=$(sha256sum <"$0")

mkdir -p "$peers"
exec 9>"$peers/.lock"
flock 9
if [ "$(cat "$dest/.stamp" 2>/dev/null)" = "$stamp" ]; then
    printf '%s\n' "$dest/bin/llama-bench"
    exit 0
fi
for tool in g++ cmake ninja python3; do
    command -v $tool >/dev/null || die "needs $tool (apt-get install g++ cmake ninja-build python3)"
done

work=$peers/work
rm -rf "$work"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT

say "fetching the source (77 MB)"
pip="python3 -m pip"
if ! $pip --version >/dev/null 2>&1; then
    quietly python3 -m venv "$work/venv"
    pip="$work/venv/bin/python -m pip"
fi
# shellcheck disable=SC2086 # a command of several words
quietly $pip download -q --disable-pip-version-check --no-deps --no-binary llama-cpp-python \
    -d "$work" "llama-cpp-python==$version"
sdist=$work/llama_cpp_python-$version.tar.gz
echo "$sha256  $sdist" | sha256sum -c --quiet - >&2 || die "the source is not the one expected"
tar -xzf "$sdist" -C "$work"
source=$work/llama_cpp_python-$version/vendor/llama.cpp

# gcc 12 believes that _tile_loadconfig reads 8 bytes and drops the stores of the other 56: SIGILL
# on machines with AMX. A barrier keeps them.
amx=$source/ggml/src/ggml-cpu/amx/mmq.cpp
sed -i 's/^\( *\)_tile_loadconfig(&tc);/\1__asm__ volatile("" : : "r"(\&tc) : "memory");\n&/' "$amx"
grep -q '__asm__ volatile' "$amx" || die "could not patch ${amx##*/}"

say "building $tools (minutes)"
# Libraries are found beside the programs, so that the folder can be moved where it belongs.
quietly cmake -S "$source" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_BUILD_RPATH_USE_ORIGIN=ON -DBUILD_SHARED_LIBS=ON \
    -DLLAMA_BUILD_COMMIT="llama-cpp-python-$version" -DLLAMA_BUILD_NUMBER=0 \
    -DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON \
    -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF
# shellcheck disable=SC2086 # a list
quietly cmake --build "$work/build" --target $tools

"$work/build/bin/llama-bench" --version >&2 || die "the llama-bench that was built does not start"
rm -rf "$dest"
mkdir -p "$dest"
mv "$work/build/bin" "$dest/bin"
cp "$source/LICENSE" "$dest/"
printf '%s\n' "$stamp" >"$dest/.stamp"
printf '%s\n' "$dest/bin/llama-bench"
