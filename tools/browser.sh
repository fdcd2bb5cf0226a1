#!/usr/bin/env bash
# What the tests of notebooks in a real browser need and this machine lacks: Debian's Chromium.
set -euo pipefail
# shellcheck source=tools/install.sh
. "$(dirname "${BASH_SOURCE[0]}")/install.sh"
for name in chromium chromium-browser google-chrome; do # as in tests/integration/browser.py
    command -v "$name" >/dev/null && exit 0
done
install_missing "notebooks in a browser" chromium
