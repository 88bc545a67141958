#!/bin/bash
# install_test.sh -- installs into a temporary prefix and uses what is there:
#
#   install_test.sh SOURCE_DIR BUILD_DIR
#
# Runs SmolLM2 from the models of the tests; skipped (77) where it has not been fetched.
# The example is built with pkg-config (shared and static) and with find_package, and all of them
# say what `ttx run` says. Only ttx.h's functions are visible, and mistakes get their codes.
set -euo pipefail
source=$1 build=$2
model=${TTX_MODELS:-${TTX_CACHE:-$HOME/.cache/ttx}/models}/SmolLM2-135M-Instruct.Q4_1.gguf
if [[ ! -f $model ]]; then
    echo "$model is missing: tests/fixtures/fetch_models.py smollm2 fetches it"
    exit 77
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
    echo "$*" >&2
    exit 1
}

cmake --install "$build" --prefix "$dir/first" >/dev/null
mv "$dir/first" "$dir/usr" # nothing may depend on where it was installed
lib=$(dirname "$(find "$dir/usr" -name libttx.a)")

for file in bin/ttx include/ttx.h share/man/man1/ttx.1 share/man/man1/ttx-run.1 \
    share/bash-completion/completions/ttx share/zsh/site-functions/_ttx \
    share/fish/vendor_completions.d/ttx.fish; do
    [[ -s $dir/usr/$file ]] || fail "not installed: $file"
done

declared=$(grep -o 'ttx_lm_[a-z_]*(' "$dir/usr/include/ttx.h" | tr -d '(' | sort -u)
exported=$(nm -D --defined-only "$lib/libttx.so" | awk '{print $3}' | sort -u)
[[ $exported == "$declared" ]] || fail "libttx.so exports:" "$exported"
visible=$(nm --defined-only --extern-only "$lib/libttx.a" | awk 'NF == 3 {print $3}' | sort -u)
[[ $visible == "$declared" ]] || fail "libttx.a exports:" "$visible"

export PKG_CONFIG_PATH=$lib/pkgconfig
example=$source/tests/install/example.c
read -r -a shared <<<"$(pkg-config --cflags --libs ttx)"
cc "$example" -Wall -Wextra -Werror "${shared[@]}" -Wl,-rpath,"$lib" -o "$dir/shared"
read -r -a cflags <<<"$(pkg-config --cflags ttx)"
read -r -a libs <<<"$(pkg-config --static --libs ttx)"
mkdir "$dir/only" && ln -s "$lib/libttx.a" "$dir/only/"
cc "$example" "${cflags[@]}" -L"$dir/only" "${libs[@]}" -o "$dir/static"
if ldd "$dir/static" | grep -q libttx; then fail "the static example needs libttx.so"; fi

mkdir "$dir/project" && cp "$example" "$dir/project/"
cat >"$dir/project/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.20)
project(example C)
find_package(ttx 0.1 REQUIRED)
add_executable(example example.c)
target_link_libraries(example PRIVATE ttx::ttx)
add_executable(example_static example.c)
target_link_libraries(example_static PRIVATE ttx::static)
END
cmake -S "$dir/project" -B "$dir/project/build" -G Ninja -DCMAKE_PREFIX_PATH="$dir/usr" >/dev/null
cmake --build "$dir/project/build" >/dev/null

prompt="The capital of France is"
expected=$prompt$("$dir/usr/bin/ttx" run -m "$model" -p "$prompt" -n 32 --temp 0 2>/dev/null)
for program in shared static project/build/example project/build/example_static; do
    got=$("$dir/$program" "$model" "$prompt")
    [[ $got == "$expected" ]] || fail "$program wrote '$got', ttx run wrote '$expected'"
    if "$dir/$program" /dev/null x >/dev/null 2>&1; then fail "$program accepts an empty model"; fi
done
cc "$source/tests/install/misuse.c" -Wall -Wextra -Werror "${shared[@]}" -Wl,-rpath,"$lib" -o "$dir/misuse"
"$dir/misuse" "$model" || fail "misuse goes unnoticed"
c++ -x c++ -std=c++17 -fsyntax-only "$dir/usr/include/ttx.h" 2>/dev/null ||
    ! command -v c++ >/dev/null || fail "ttx.h is no C++"
