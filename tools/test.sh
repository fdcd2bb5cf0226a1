#!/usr/bin/env bash
# The linters, the tests of single processes on all cores, then those that start jobs of their own, three files at a time,
# since they wait half of the time. Arguments go to the last run of pytest, whose closing lines come last.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
BIN=${HPCGAN_VENV:-$PWD/.venv}/bin
failed=0
tools/lint.sh || failed=1
# A thread each: as many processes as cores share them.
OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 "$BIN/python" -m pytest -n "$(nproc)" --dist loadfile tests/single || failed=1
"$BIN/python" -m pytest -n 3 --dist loadfile tests/parallel tests/integration "$@" || failed=1
[ $failed = 0 ] || echo "make test: FAILED (linters or tests, see above)" >&2
exit $failed
