#!/bin/sh
# Make the virtual environment and install exactly what the lock names, by hash. Progress goes to stderr.
set -eu
python=$1 venv=$2 lock=$3
# an environment without pip is what remains where ensurepip was missing at first
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  "$python" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || {
    echo "groundplan: ${python:+$python is not what is needed: }Python 3.11, 3.12 or 3.13 with venv and pip (on Debian and Ubuntu the package python3-venv); install it, or name it: make run PYTHON=/path/to/python3.12" >&2
    exit 69
  }
  echo "groundplan: making $venv with $python" >&2
  "$python" -m venv "$venv"
fi
echo "groundplan: installing packages of $lock (checked by hash)" >&2
progress=off
[ -t 2 ] && progress=on
# The lock names every package, so dependencies are not resolved: pip 23.2, which comes with Python 3.11.7 and 3.12.1,
# refuses a locked package that requires another one with an extra (weasel: smart-open[http]) as not pinned.
"$venv/bin/python" -m pip install --quiet --progress-bar $progress --no-deps --require-hashes --only-binary :all: \
  -r "$lock" >&2
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable . >&2
echo "groundplan: packages are ready" >&2
