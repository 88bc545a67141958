#!/bin/sh
# readme_test.sh -- the README's transcript, run again: readme_test.sh TTX README
#
# At every level of kernels that this machine has: what readers see must not hang on rounding.
# Skipped (77) without the model, which ./quickstart.sh and fetch_models.py fetch.
set -eu
ttx=$1 readme=$2
model=${TTX_MODELS:-${TTX_CACHE:-$HOME/.cache/ttx}/models}/SmolLM2-135M-Instruct.Q4_1.gguf
[ -f "$model" ] || exit 77
# shellcheck disable=SC2016 # the quotes are of Markdown
block=$(sed -n '/^```console$/,/^```$/p' "$readme" | sed '1d;$d')
prompt=$(printf '%s\n' "$block" | sed -n '1s/^\$ build\/ttx run -m [^ ]*SmolLM2[^ ]*gguf --chat -p "\(.*\)" --temp 0$/\1/p')
answer=$(printf '%s\n' "$block" | sed 1d)
if [ -z "$prompt" ] || [ -z "$answer" ]; then
    echo "$readme: expected a command and its answer, found: $block" >&2
    exit 1
fi
for isa in auto scalar avx2 avx512 vnni amx; do
    rc=0
    found=$("$ttx" run -m "$model" --chat -p "$prompt" --temp 0 -n 64 --isa $isa 2>/dev/null) || rc=$?
    [ $rc = 2 ] && continue # not on this machine
    [ "$found" = "$answer" ] && continue
    echo "--isa $isa: expected '$answer', found '$found' (exit code $rc)" >&2
    exit 1
done
