#!/bin/sh
# Horovod's build calls this in place of cmake (HOROVOD_CMAKE), to configure what it has no option for:
# no debug information, -O1 instead of -O3 and no operations for XLA (two thirds of the compile time; a call takes as
# long as before), sources compiled seven at a time (half of what is left goes into the headers they share), and a
# library that looks for libmpi in the environment it is installed in (lib/pythonX.Y/site-packages/horovod/tensorflow
# -> lib).
set -eu
if [ "${1:-}" = --build ] && [ -n "${HPCGAN_CONFIGURED:-}" ]; then
    : >"$HPCGAN_CONFIGURED" # it has asked TensorFlow all it wants to know
fi
if [ "${1:-}" = --build ] || [ "${1:-}" = --version ]; then
    exec cmake "$@"
fi
if [ "${HPCGAN_MPI_KIND:-}" = pypi ]; then
    # shellcheck disable=SC2016  # $ORIGIN is for the dynamic linker
    set -- "$@" '-DCMAKE_BUILD_RPATH=$ORIGIN/../../../..'
fi
if [ -n "${HPCGAN_MPICXX:-}" ]; then # CMake would take the one beside mpirun, whose path has spaces
    set -- "$@" "-DMPI_CXX_COMPILER=$HPCGAN_MPICXX"
fi
if [ "${HPCGAN_GPU:-0}" != 1 ]; then # the sources for CUDA have not been tried together
    set -- "$@" -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=7
fi
# $1 is the source, in a folder of pip's own. Its thread shall wake when there is work; where that cannot be changed, it
# looks every millisecond, as Horovod does.
if [ "${HPCGAN_GPU:-0}" != 1 ]; then
    python3 "${0%/*}/horovod_wake.py" "$1" || true
fi
# Nothing calls these operations unless HOROVOD_ENABLE_XLA_OPS is set.
sed -i '/xla_mpi_ops\.cc/d' "$1/horovod/tensorflow/CMakeLists.txt"
exec cmake "$@" '-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -DNDEBUG'
