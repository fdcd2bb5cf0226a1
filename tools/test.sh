#!/usr/bin/env bash
# All tests: one process more than there are cores, since those of tests/integration wait half of the time. They begin
# first, and single processes' fill what is left. The linters run beside them and are heard of if they find something.
# Arguments go to pytest, whose closing lines come last.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
BIN=${HPCGAN_VENV:-$PWD/.venv}/bin
said=$(mktemp)
trap 'rm -f "$said"' EXIT
tools/lint.sh >"$said" 2>&1 &
linters=$!
failed=""
# A thread each: processes share the cores. Ranks that tests start have as many as they are told; at Horovod's own cycle of
# 1 ms they would wait for each other on cores that others need.
OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 HOROVOD_CYCLE_TIME=10 "$BIN/python" -m pytest -n $(($(nproc) + 1)) --dist loadfile \
    tests/parallel tests/integration tests/single "$@" || failed=tests
wait $linters || { cat "$said" >&2 && failed="linters $failed"; }
[ -z "$failed" ] || { echo "make test: FAILED ($failed), see above" >&2 && exit 1; }
