#!/bin/sh
# quickstart.sh -- from a fresh Debian or Ubuntu to a model that answers, in minutes.
#
#   ./quickstart.sh [PROMPT]
#
# Installs packages (as root or with sudo), builds build/ttx, fetches SmolLM2-135M-Instruct (98 MB,
# Apache-2.0) into ${TTX_MODELS:-~/.cache/ttx/models}, and runs it. What is there already is not
# done again.
set -eu
cd "$(dirname "$0")"
# shellcheck source=.ci/common.sh
. .ci/common.sh

prompt=${1:-"What is gravity?"}

need_packages
build build ttx -DCMAKE_BUILD_TYPE=Release -DTTX_TESTS=OFF
say "the model"
model=$(fetch_smollm2) || die "could not fetch the model"
echo "$model"

set -- run -m "$model" --chat -p "$prompt" -n 128 --temp 0
say "build/ttx run -m ${model##*/} --chat -p \"$prompt\" -n 128 --temp 0"
build/ttx "$@"

say "that was it. Next:"
cat <<END
  build/ttx run -m $model --chat -i    # talk to it
  build/ttx --help                     # what else there is
  ./test.sh                            # the tests
END
