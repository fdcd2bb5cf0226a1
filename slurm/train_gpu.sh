#!/bin/bash
# One rank a GPU, with NCCL (make setup GPU=1). UNTESTED: no GPU machine was at hand.
#SBATCH --job-name=train_gpu
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

# --- settings --------------------------------------------------------------------------------------
CONFIG=configs/rpv.yaml
DATA=data/rpv              # make it first: hpcgan data rpv --out data/rpv --events 24000 --mass 1400,850 --seed 1
HPCGAN=.venv/bin/hpcgan    # made by `make setup GPU=1`
# ----------------------------------------------------------------------------------------------------

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
[ -x "$HPCGAN" ] || { echo "no $HPCGAN here: submit from the repository, after 'make setup GPU=1'" >&2; exit 2; }
source slurm/site.sh

exec "$HPCGAN" supervise -- train "$CONFIG" data.path="$DATA"
