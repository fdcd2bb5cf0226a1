# shellcheck shell=bash
# What a step of tools/setup.sh needs, looked at before the step starts: one line with the remedy where it is missing.
# Sourced by tools/setup.sh, whose variables these functions read.

COMPILER_MB=1200    # of one process that compiles Horovod (measured: 980)

need_space() { # DIR MEGABYTES WHAT VARIABLE
    local dir=$1 free needed=$2
    if [ -e "$dir/pyvenv.cfg" ]; then # not where others write meanwhile: du would fail
        needed=$((needed - $({ du -sm "$dir" 2>/dev/null || echo 0; } | tail -n 1 | cut -f 1)))
        [ "$needed" -ge 100 ] || needed=100
    fi
    while [ ! -d "$dir" ]; do dir=$(dirname "$dir"); done
    [ -w "$dir" ] || die "$dir is not writable; $3 needs it: choose another folder with $4"
    free=$(df -Pm "$dir" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$needed" ] ||
        die "no disk space: $dir has $free MB free, $3 needs $needed MB; free some, or move it ($4)"
}

free_memory() { # MB that may still be taken: of the machine, and of the control groups that a job is in
    local free group limit used key value
    free=$(awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo)
    group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup 2>/dev/null)
    while [ "${group#/sys/fs/cgroup}" != "$group" ]; do
        limit=$(cat "$group/memory.max" 2>/dev/null) || limit=max
        if [ "$limit" != max ]; then
            used=$(cat "$group/memory.current" 2>/dev/null) || used=0
            while read -r key value; do # of files, which the system drops when programs want the memory
                case $key in inactive_file | active_file | slab_reclaimable) used=$((used - value)) ;; esac
            done 2>/dev/null <"$group/memory.stat" || true
            limit=$(((limit - used) / 1048576))
            [ "$limit" -ge "$free" ] || free=$limit
        fi
        group=$(dirname "$group")
    done
    echo "$free"
}

check_memory() { # sets MAKEFLAGS to as many compilers as there is memory for, where the user has not
    local free jobs cores
    free=$(free_memory)
    [ -n "$free" ] || return 0 # a system that does not say
    [ "$free" -ge $COMPILER_MB ] ||
        die "$free MB of memory are free, and compiling Horovod needs $COMPILER_MB; close programs, or ask for more memory (Slurm: --mem=4G)"
    [ -z "${MAKEFLAGS:-}" ] || return 0
    jobs=$((free / COMPILER_MB)) cores=$(nproc)
    if [ $jobs -ge "$cores" ]; then
        jobs=$cores
    else
        say "$free MB of memory are free: $jobs compilers at a time, not $cores"
    fi
    export MAKEFLAGS=-j$jobs
}

check_network() { # whether what pip is set to install from answers: a small package is fetched
    local dir log=$LOGS/network.log
    dir=$(mktemp -d)
    if ! pip download --no-deps --no-cache-dir --retries 1 --timeout 20 -d "$dir" wheel >"$log" 2>&1 </dev/null; then
        rm -rf "$dir"
        die "no package index: $(explain "$log") [log: $log]"
    fi
    rm -rf "$dir"
}

compiles() { # COMPILER FILE TEXT: whether it makes a program; else WHY is what it says first
    local dir cause
    dir=$(mktemp -d)
    printf '%b' "$3" >"$dir/$2"
    # shellcheck disable=SC2086  # CXX may carry options
    if $1 "$dir/$2" -o "$dir/a" >"$dir/log" 2>&1; then
        rm -rf "$dir"
        return 0
    fi
    cause=$(grep -m 1 -iE 'error|cannot find' "$dir/log") || cause=$(head -n 1 "$dir/log")
    WHY=$(printf '%s' "${cause:-no message}" | sed "s|$dir/||g" | cut -c 1-160)
    rm -rf "$dir"
    return 1
}

check_compiler() {
    local cxx=${CXX:-g++}
    command -v "${cxx%% *}" >/dev/null ||
        die "no C++ compiler ($cxx); install g++ 9 or newer (Debian/Ubuntu: apt install g++; cluster: module load gcc; conda: environment.yml), or set CXX"
    compiles "$cxx -std=c++17" a.cc '#include <optional>\nint main() { return std::optional<int>(0).value(); }\n' ||
        die "$cxx cannot build a C++17 program ($WHY); install g++ 9 or newer with its libraries (apt install g++), or set CXX"
}

check_headers() { # Python's, for mpi4py where it is compiled
    local dir
    dir=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null) || return 0
    [ -f "$dir/Python.h" ] ||
        die "Python's headers are missing ($dir/Python.h), which mpi4py is compiled with; install them (Debian/Ubuntu: apt install python$PYVER-dev), or set HPCGAN_PYTHON"
}

MPI_PROGRAM='#include <mpi.h>\nint main(int c, char **v) { MPI_Init(&c, &v); return MPI_Finalize(); }\n'

check_site_mpi() { # what both builds need of a site's MPI
    command -v "$MPI_DIR/mpirun" >/dev/null || command -v mpirun >/dev/null ||
        die "$MPICC has no mpirun beside it or on PATH; install it (apt install openmpi-bin), or HPCGAN_MPI=pypi"
    compiles "$MPICC" a.c "$MPI_PROGRAM" ||
        die "the MPI of $MPICC is broken ($WHY): it cannot compile and link a five-line program; mend it, set MPICC to another, or HPCGAN_MPI=pypi"
    check_headers
}

check_mpicxx() { # what Horovod needs of a site's MPI besides
    [ "$MPI_KIND" = site ] || return 0
    command -v "$MPI_DIR/mpicxx" >/dev/null ||
        die "$MPICC has no mpicxx beside it, which Horovod needs; install the C++ part of your MPI (apt install libopenmpi-dev), or HPCGAN_MPI=pypi"
    compiles "$MPI_DIR/mpicxx" a.cc "$MPI_PROGRAM" ||
        die "$MPI_DIR/mpicxx cannot compile a five-line program ($WHY); install the MPI's C++ headers and a g++ (apt install libopenmpi-dev g++), or HPCGAN_MPI=pypi"
}

check_gpu() {
    [ "$GPU" = 1 ] || return 0
    say "GPU set-up: UNTESTED, no machine with a GPU was at hand"
    command -v nvcc >/dev/null || [ -x "${HOROVOD_CUDA_HOME:-${CUDA_HOME:-/usr/local/cuda}}/bin/nvcc" ] ||
        die "HPCGAN_GPU=1 needs the CUDA toolkit (nvcc) to build Horovod with NCCL; module load cuda, or set CUDA_HOME"
}
