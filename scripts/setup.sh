#!/bin/sh
# Make the virtual environment and install exactly what the lock names, by hash. Progress goes to stderr.
set -eu
python=$1 venv=$2 lock=$3
[ -n "$python" ] || { echo "groundplan: Python 3.11, 3.12 or 3.13 with the venv module is needed; install it, or name it: make run PYTHON=/path/to/python3.12" >&2; exit 69; }
[ -x "$venv/bin/python" ] && "$venv/bin/python" -c '' 2>/dev/null || { echo "groundplan: making $venv with $python" >&2; "$python" -m venv "$venv"; }
echo "groundplan: installing packages of $lock (checked by hash)" >&2
progress=off
[ -t 2 ] && progress=on
"$venv/bin/python" -m pip install --quiet --progress-bar $progress --require-hashes --only-binary :all: -r "$lock" >&2
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable . >&2
echo "groundplan: packages are ready" >&2
