#!/usr/bin/env bash
# All linters; every one runs, and any complaint fails.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
BIN=${HPCGAN_VENV:-$PWD/.venv}/bin
failed=0

check() { # NAME COMMAND...
    local name=$1
    shift
    if "$@"; then
        echo "lint: $name: ok"
    else
        echo "lint: $name: FAILED" >&2
        failed=1
    fi
}

check "ruff check" "$BIN/python" -m ruff check --quiet .
check "ruff format" "$BIN/python" -m ruff format --check --quiet .
# Types are those of the pinned packages, which are for Python 3.11: another NumPy has others.
if "$BIN/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    check "mypy" "$BIN/python" -m mypy --no-error-summary
    check "mypy, notebooks" "$BIN/python" tools/notebook_code.py
else
    echo "lint: mypy: left out, as packages are pinned for Python 3.11 only"
fi
mapfile -t scripts < <(find tools .ci containers slurm -type f \( -name '*.sh' -o -path '.ci/run' \) 2>/dev/null)
check "shellcheck" "$BIN/shellcheck" "${scripts[@]}"
exit $failed
