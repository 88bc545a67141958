#!/bin/sh
# test.sh -- builds everything and runs every test through ctest.
#
#   ./test.sh [CTEST-OPTION...]      for example: ./test.sh -L unit
#
# Installs what the tests need (as root or with sudo), then builds thrice: Release with gcc (all
# tests), with clang under AddressSanitizer and UndefinedBehaviorSanitizer (unit tests and
# fuzzing), and without tracing. The reference (llama.cpp, prebuilt, and Python packages) and the
# test models go to ${TTX_CACHE:-~/.cache/ttx}. Needs about 20 minutes the first time on two cores.
set -eu
cd "$(dirname "$0")"
# shellcheck source=.ci/common.sh
. .ci/common.sh

need_packages clang clang-format clang-tidy cppcheck shellcheck groff chromium
# The sanitizers' runtime is a package of its own in newer releases.
if ! echo 'int main(void) { return 0; }' |
    clang -x c -fsanitize=address -o /dev/null - 2>/dev/null; then
    need_packages "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
fi

build build all -DCMAKE_BUILD_TYPE=Release -DTTX_TESTS=ON
build build-asan all -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_COMPILER=clang \
    -DTTX_SANITIZE=ON -DTTX_TESTS=ON

build build-off all -DCMAKE_BUILD_TYPE=Release -DTTX_TRACE=OFF -DTTX_TESTS=ON

say "the reference"
reference=$(tests/reference/setup.sh) || die "could not install the reference"
echo "$reference"
PATH=$reference/bin:$PATH
say "models and vocabularies"
python tests/fixtures/fetch_models.py || die "could not fetch the models"

failed=0
say "tests under the sanitizers"
ctest --test-dir build-asan -j 2 --output-on-failure -L 'unit|fuzz' "$@" || failed=1
say "tests of the program without tracing"
ctest --test-dir build-off -j 2 --output-on-failure -L unit \
    -R '^(trace|engine|program)' "$@" || failed=1
say "tests of the release"
ctest --test-dir build -j 2 --output-on-failure -LE fuzz "$@" || failed=1
exit $failed
