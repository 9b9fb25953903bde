#!/bin/sh
# The browser tests need a real Chromium. Found: nothing to do. Root on a Debian-like system: the distribution's package. Otherwise say so, loudly.
set -u
for name in chromium chromium-browser google-chrome; do
  command -v "$name" >/dev/null 2>&1 && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "groundplan: installing Chromium for the browser tests" >&2
  if apt-get update -qq >/dev/null 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1; then
    exit 0
  fi
fi
echo "groundplan: NO CHROMIUM: the browser tests will be listed as NOT RUN. Install the package 'chromium' to run them." >&2
exit 0
