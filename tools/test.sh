#!/usr/bin/env bash
# The linters, then all tests: one process more than there are cores, since those of tests/integration wait half of the
# time. They begin first, and single processes' fill what is left. Arguments go to pytest, whose closing lines come last.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
BIN=${HPCGAN_VENV:-$PWD/.venv}/bin
failed=0
tools/lint.sh || failed=1
# A thread each: processes share the cores. Ranks that tests start have as many as they are told; at Horovod's own cycle of
# 1 ms they would wait for each other on cores that others need.
OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 HOROVOD_CYCLE_TIME=10 "$BIN/python" -m pytest -n $(($(nproc) + 1)) --dist loadfile \
    tests/parallel tests/integration tests/single "$@" || failed=1
[ $failed = 0 ] || echo "make test: FAILED (linters or tests, see above)" >&2
exit $failed
