#!/usr/bin/env bash
# The linters, then one run of pytest over all tests, whose closing lines come last. Arguments go to pytest.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
BIN=${HPCGAN_VENV:-$PWD/.venv}/bin
failed=0
tools/lint.sh || failed=1
"$BIN/python" -m pytest "$@" || failed=1
[ $failed = 0 ] || echo "make test: FAILED (linters or tests, see above)" >&2
exit $failed
