# shellcheck shell=bash
# What differs between clusters: modules, account, the way ranks are started. The templates here and
# `hpcgan submit` source this file at the beginning of a job. The values are examples; none is needed where
# `make setup` found all it wanted.

# module load openmpi            # the MPI that the environment was built with (see `hpcgan doctor`)
# export SBATCH_ACCOUNT=m1234    # for sbatch on the login node: source this file there, too

# How ranks are started: auto (srun where it and the MPI library speak the same PMI, else mpirun), srun, mpirun.
export HPCGAN_LAUNCHER=${HPCGAN_LAUNCHER:-auto}
# export HPCGAN_SRUN_MPI=pmix    # for `srun --mpi=`, where the site's name is another

# Open MPI refuses to start as root, which is what one is in a container.
if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
