#!/bin/sh
# Runs cross_check.py with the reference environment if it is there, else with the system's Python.
ref=${TTX_CACHE:-$HOME/.cache/ttx}/reference/bin/python
[ -x "$ref" ] || ref=python3
exec "$ref" "$(dirname "$0")/cross_check.py" "$@"
