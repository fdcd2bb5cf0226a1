#!/bin/sh
# Horovod's build calls this in place of cmake (HOROVOD_CMAKE), to configure what it has no option for:
# no debug information (a third of the compile time), and a library that looks for libmpi in the
# environment it is installed in (lib/pythonX.Y/site-packages/horovod/tensorflow -> lib).
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
exec cmake "$@" '-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O2 -DNDEBUG'
