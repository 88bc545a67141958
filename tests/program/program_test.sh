#!/bin/bash
# program_test.sh -- the program around the commands: program_test.sh TTX
#
# Errors are one line on stderr with the right exit code; help, man pages and completion exist for
# every command; help is quick.
set -uo pipefail
ttx=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

fail() {
    echo "$*" >&2
    failed=1
}

# refuses CODE MESSAGE ARGUMENT...: exit code, and all of stderr (a pattern); nothing on stdout
refuses() {
    local code=$1 message=$2 out rc
    shift 2
    out=$("$ttx" "$@" 2>"$dir/err")
    rc=$?
    [[ $rc == "$code" ]] || fail "ttx $*: exit code $rc, expected $code"
    # shellcheck disable=SC2053 # a pattern
    [[ $(<"$dir/err") == $message ]] || fail "ttx $*: '$(<"$dir/err")', expected '$message'"
    [[ $(wc -l <"$dir/err") == 1 && -z $out ]] || fail "ttx $*: more than one line on stderr"
}
refuses 2 "ttx: expects a command; see 'ttx --help'"
refuses 2 "ttx: unknown command 'rum'; see 'ttx --help'" rum
refuses 2 "ttx: unknown command 'rum'; see 'ttx --help'" help rum
refuses 2 "ttx: unknown option '--frob'; see 'ttx --help'" --frob
refuses 2 "ttx: run: unknown option '--promt'; did you mean '--prompt'?" run --promt x
refuses 2 "ttx: run: option '-m FILE' is required; see 'ttx run --help'" run -p x
refuses 2 "ttx: completion: expects one of bash, zsh, fish, got 'ksh'" completion ksh
refuses 2 "ttx: man: unexpected argument 'b'; see 'ttx man --help'" man run b
refuses 1 "ttx: $dir/none: *" gguf-dump -m "$dir/none"
echo "not a model" >"$dir/bad.gguf"
for command in run eval tokenize; do
    echo x >"$dir/text"
    refuses 3 "ttx: $dir/bad.gguf: *" "$command" -m "$dir/bad.gguf" -f "$dir/text"
done
refuses 3 "ttx: $dir/bad.gguf: *" plan -m "$dir/bad.gguf"
if [[ -w /dev/full ]]; then
    "$ttx" --help >/dev/full 2>"$dir/err"
    [[ $? == 1 && $(<"$dir/err") == "ttx: standard output: "* ]] || fail "a full disk goes unnoticed"
fi

[[ $("$ttx" --version) =~ ^ttx\ [0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "--version"
"$ttx" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p' >"$dir/commands"
[[ $(grep -cxE 'run|eval|tokenize|gguf-dump|plan|help|completion|man' "$dir/commands") == 8 ]] ||
    fail "ttx --help lists: $(tr '\n' ' ' <"$dir/commands")"
while read -r command; do
    "$ttx" "$command" --help >"$dir/a" || fail "$command --help"
    "$ttx" help "$command" >"$dir/b" || fail "help $command"
    cmp "$dir/a" "$dir/b" || fail "$command: --help and help differ"
    grep -q "^usage: ttx $command" "$dir/a" || fail "$command --help has no usage"
    awk 'length > 80' "$dir/a" | grep -v '^  ' && fail "$command --help is wider than 80"
    "$ttx" man "$command" >"$dir/page.1" || fail "man $command"
    if command -v groff >/dev/null; then
        groff -man -Tascii -ww "$dir/page.1" 2>"$dir/err" >/dev/null
        [[ ! -s $dir/err ]] || fail "man $command: $(<"$dir/err")"
    fi
done <"$dir/commands"
for shell in bash zsh fish; do
    "$ttx" completion $shell >"$dir/script" || fail "completion $shell"
    ! command -v $shell >/dev/null || $shell -n "$dir/script" || fail "completion $shell: syntax"
done

best=1000000
for _ in {1..30}; do
    start=${EPOCHREALTIME/[.,]/}
    "$ttx" run --help >/dev/null
    end=${EPOCHREALTIME/[.,]/}
    best=$((end - start < best ? end - start : best))
done
((best < 100000)) || fail "ttx run --help takes $best us"
exit $failed
