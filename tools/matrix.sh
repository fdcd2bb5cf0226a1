#!/usr/bin/env bash
# The tests of one process and of several ranks on each TensorFlow: tools/matrix.sh [VERSION...]
#
# By default those of constraints-tf*.txt, on HPCGAN_PYTHON or the Python that tools/setup.sh finds. Each has its
# environment in .venvs (HPCGAN_VENVS), which is kept. What pytest and the set-up say is beside it. Ends with a table;
# fails if a version does.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
FOLDER=${HPCGAN_VENVS:-$PWD/.venvs}
VERSIONS=("$@")
if [ $# = 0 ]; then
    for file in constraints-tf*.txt; do
        file=${file#constraints-tf}
        VERSIONS+=("${file%.txt}")
    done
fi
on="" # in the name of the environment, where the Python is somebody's choice
[ -z "${HPCGAN_PYTHON:-}" ] || on=$("$HPCGAN_PYTHON" -c 'import sys; print("-py%d.%d" % sys.version_info[:2])') || exit
mkdir -p "$FOLDER" || exit

rows=() failed=0
for version in "${VERSIONS[@]}"; do
    venv=$FOLDER/tf$version$on
    log=$venv.log
    echo "TensorFlow $version: $log"
    start=$SECONDS python=-
    if ! HPCGAN_VENV=$venv HPCGAN_TF=$version HPCGAN_HOROVOD=1 tools/setup.sh train dev >"$log" 2>&1; then
        result="no environment: $(tail -n 1 "$log")" failed=1
    else
        python=$("$venv/bin/python" -c 'import platform; print(platform.python_version())')
        # As in tools/test.sh, but for the jobs that wait half of the time.
        OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 HOROVOD_CYCLE_TIME=10 "$venv/bin/python" -m pytest -n "$(nproc)" \
            --dist loadfile tests/parallel tests/single >>"$log" 2>&1 || failed=1
        result=$(tail -n 1 "$log" | tr -d =)
        grep -E '^(FAILED|ERROR) ' "$log"
    fi
    rows+=("$version" "$python" "$(((SECONDS - start) / 60)) min" "$result")
done
echo
printf '%-11s %-8s %-8s %s\n' TensorFlow Python time result "${rows[@]}"
exit $failed
