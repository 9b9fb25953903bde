#!/bin/sh
# Renew the locks: versions and hashes for every supported Python, no addresses. Needs `uv`.
set -eu
for extra in run dev; do
  option=""
  [ $extra = dev ] && option="--extra dev"
  printf 'hatchling\neditables\n' > requirements/build.in
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
    $option pyproject.toml requirements/build.in -o requirements/$extra.txt
done
rm -f requirements/build.in
printf 'anthropic>=2\n' | uv pip compile --quiet --universal --python-version 3.11 --no-deps --generate-hashes --no-emit-index-url \
  --no-annotate --no-header - -o requirements/clients.txt
