#!/bin/sh
# The newest official clients for Python that cannot stand beside what else is installed (a library that speaks to
# providers wants an older one): into a folder of their own, by hash, for tests that ask a gateway from a process of theirs.
set -eu
venv=$1
"$venv/bin/python" -m pip install --quiet --no-deps --upgrade --require-hashes --only-binary :all: \
  --target "$venv/clients" -r requirements/clients.txt >&2
