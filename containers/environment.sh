# shellcheck shell=sh
# What a container's processes start with; both recipes source it.
#
#   HPCGAN_SITE_MPI   folder of the site's Open MPI, bound into the container: its libmpi and mpirun are then used

PATH=/opt/hpcgan/venv/bin:$PATH
if [ -n "${HPCGAN_SITE_MPI:-}" ]; then
    if [ -e "$HPCGAN_SITE_MPI/lib/libmpi.so.40" ] || [ -e "$HPCGAN_SITE_MPI/lib64/libmpi.so.40" ]; then
        PATH=$HPCGAN_SITE_MPI/bin:$PATH
        LD_LIBRARY_PATH=$HPCGAN_SITE_MPI/lib:$HPCGAN_SITE_MPI/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        export LD_LIBRARY_PATH
    else
        echo "hpcgan: HPCGAN_SITE_MPI=$HPCGAN_SITE_MPI has no libmpi.so.40 here: bind that folder into the container" \
            "(apptainer --bind, podman -v), or unset it" >&2
    fi
fi
if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export PATH
