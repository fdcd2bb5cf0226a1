#!/bin/bash
# Train on RPV events on 2 nodes, until it is done: sbatch slurm/train_rpv.sh, from the folder of this repository.
#SBATCH --job-name=train_rpv
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --time=01:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

# --- settings --------------------------------------------------------------------------------------
CONFIG=configs/rpv.yaml
DATA=data/rpv              # generated in the job when it is missing
EVENTS=24000
MASS=1400,850              # gluino, neutralino, GeV
GLOBAL_BATCH=128           # events of a step over all ranks: what the rates of rpv.yaml were chosen for
HPCGAN=.venv/bin/hpcgan    # made by `make setup`
# ----------------------------------------------------------------------------------------------------

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
[ -x "$HPCGAN" ] || { echo "no $HPCGAN here: submit from the repository, after 'make setup'" >&2; exit 2; }
source slurm/site.sh

if [ ! -e "$DATA/test.h5" ]; then
    "$HPCGAN" data rpv --out "$DATA" --events "$EVENTS" --mass "$MASS" --seed 1 --jobs "${SLURM_CPUS_ON_NODE:-1}"
fi

# Takes the place of this shell, so that Slurm's signals reach it: before the time limit it has the ranks write a
# checkpoint and puts the job back into the queue; ranks that fail are started again from the last checkpoint.
exec "$HPCGAN" supervise -- train "$CONFIG" data.path="$DATA" training.global_batch_size="$GLOBAL_BATCH"
