#!/usr/bin/env bash
# The steps of both recipes, Containerfile and hpcgan.def: containers/build.sh [STEP...], by default all, in this order.
#
#   system        Debian's Python, compiler and Open MPI (with PMIx)
#   environment   /opt/hpcgan/venv from /opt/hpcgan/source, Horovod and mpi4py built against that Open MPI
#   clean         what only the build needed
#
# As root, in a file system of Debian 12. Nothing here is of one recipe: `make test-container` runs the same steps in a root
# file system that debootstrap has made.
#
#   HPCGAN_EXTRAS   extras of setup.py (train sweep)

set -euo pipefail
PREFIX=/opt/hpcgan
STEPS=(system environment clean)
PACKAGES=(ca-certificates g++ libopenmpi-dev make openmpi-bin python3 python3-dev python3-venv)

die() { printf 'containers/build.sh: %s\n' "$*" >&2; exit 1; }

system() {
    command -v apt-get >/dev/null || die "no apt-get: the recipes start from Debian 12 (debian:bookworm-slim)"
    [ "$(df -Pm / | awk 'NR == 2 { print $4 }')" -ge 6000 ] ||
        die "less than 6 GB are free for the image; free some, or build elsewhere (APPTAINER_TMPDIR, podman --root)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q || die "Debian's packages cannot be reached; check the network, or http_proxy"
    apt-get install -q -y --no-install-recommends "${PACKAGES[@]}" || die "apt-get failed, see above; the step can be run again"
}

environment() {
    [ -x $PREFIX/source/tools/setup.sh ] || die "no $PREFIX/source: the recipes copy the repository there"
    local extras
    read -r -a extras <<<"${HPCGAN_EXTRAS:-train sweep}"
    # The MPI is Debian's, which a site's can take the place of: no path to it is built in.
    HPCGAN_HOROVOD=1 HPCGAN_MPI=site HPCGAN_PYTHON=/usr/bin/python3 HPCGAN_VENV=$PREFIX/venv $PREFIX/source/tools/setup.sh "${extras[@]}"
}

clean() {
    apt-get clean
    rm -rf /var/lib/apt/lists/* /root/.cache/pip /root/.cache/hpcgan
}

[ "$(id -u)" = 0 ] || die "an image is built as root (apptainer build --fakeroot, podman and docker do that)"
[ $# -gt 0 ] || set -- "${STEPS[@]}"
for step in "$@"; do
    case $step in
        system | environment | clean) "$step" ;;
        *) die "unknown step $step; the steps are ${STEPS[*]}" ;;
    esac
done
