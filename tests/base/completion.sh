#!/bin/bash
# Completion scripts: completion.sh OPT_TEST. What bash completes is compared; zsh and fish check
# the syntax where they are installed; man pages go through groff's or man's parser likewise.
set -eu
opt_test=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

"$opt_test" bash >"$dir/ttx.bash"
bash -n "$dir/ttx.bash"
# shellcheck source=/dev/null
. "$dir/ttx.bash"
# shellcheck disable=SC2317
compopt() { :; } # the real one works only while the shell completes

# completes LINE EXPECTED: the words of LINE, the last one being completed
completes() {
    read -r -a COMP_WORDS <<<"$1"
    [[ $1 == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMPREPLY=()
    _ttx
    if [[ ${COMPREPLY[*]} != "$2" ]]; then
        echo "completing '$1': expected '$2', got '${COMPREPLY[*]}'" >&2
        failed=1
    fi
}
touch "$dir/model one.gguf"
cd "$dir"
completes "ttx r" "run"
completes "ttx --v" "--version"
completes "ttx completion " "bash zsh fish"
completes "ttx help b" "bare"
completes "ttx run --te" "--temp"
completes "ttx run -ct" "-ctk"
completes "ttx run -ctk " "f16 f32 q8_0"
completes "ttx run --cache-type-k = q" "q8_0"
completes "ttx run -m mod" "model one.gguf"
completes "ttx run -n " ""

"$opt_test" zsh >"$dir/_ttx"
! command -v zsh >/dev/null || zsh -n "$dir/_ttx"
"$opt_test" fish >"$dir/ttx.fish"
if command -v fish >/dev/null; then
    got=$(HOME=$dir fish -c "source $dir/ttx.fish; complete -C 'ttx run -ctk '" | cut -f1 | sort | tr '\n' ' ')
    if [[ $got != "f16 f32 q8_0 " ]]; then
        echo "fish completes -ctk with '$got'" >&2
        failed=1
    fi
fi
if command -v groff >/dev/null; then
    "$opt_test" man | groff -man -Tascii -ww 2>"$dir/man.log" >"$dir/man.txt"
    if [[ -s $dir/man.log ]]; then cat "$dir/man.log" >&2; failed=1; fi
fi
exit $failed
