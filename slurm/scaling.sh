#!/bin/bash
# How a training scales, on 1, 2, 4 ... ranks: sbatch slurm/scaling.sh. Submitted again, it measures what is missing.
#SBATCH --job-name=scaling
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.out

# --- settings --------------------------------------------------------------------------------------
CONFIG=configs/rpv_gan.yaml
DATA=data/rpv              # make it first: hpcgan data rpv --out data/rpv --events 24000 --mass 1400,850 --seed 1
RANKS=(1 2 4)              # at most the tasks of the job
MODE=weak                  # weak: the same batch a rank; strong: the same batch over all ranks
COMM=auto                  # backends, with commas between: auto, horovod, mpi
STEPS=100                  # timed steps of each point
REPEATS=3
HPCGAN=.venv/bin/hpcgan    # made by `make setup`
# ----------------------------------------------------------------------------------------------------

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
[ -x "$HPCGAN" ] || { echo "no $HPCGAN here: submit from the repository, after 'make setup'" >&2; exit 2; }
source slurm/site.sh

ranks=$(IFS=,; echo "${RANKS[*]}")
exec "$HPCGAN" scaling "$CONFIG" data.path="$DATA" --ranks "$ranks" --mode "$MODE" --comm "$COMM" \
    --steps "$STEPS" --repeats "$REPEATS"
