#!/bin/bash
# Generators as a service on one node, until the time limit: sbatch slurm/serve.sh, from the folder of this repository.
# runs/serve-JOBID/address.json says where, once it is ready; runs/serve-JOBID/token is what clients have to show.
#SBATCH --job-name=serve
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --time=01:00:00
#SBATCH --signal=B:TERM@90
#SBATCH --output=%x-%j.out

# --- settings --------------------------------------------------------------------------------------
RUNS=(pretrained:rpv)      # run directories, or NAME=RUN
WORKERS=1                  # processes that make events, which share the cores
HPCGAN=.venv/bin/hpcgan    # made by `make setup`, then .venv/bin/pip install -e '.[serve]'
# ----------------------------------------------------------------------------------------------------

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
[ -x "$HPCGAN" ] || { echo "no $HPCGAN here: submit from the repository, after 'make setup'" >&2; exit 2; }
source slurm/site.sh

# The token is a key: nobody else may read it.
umask 077
FOLDER=$PWD/runs/serve-${SLURM_JOB_ID:?submit it with sbatch}
mkdir -p "$FOLDER"
# Takes the place of this shell, so that Slurm's signal before the time limit reaches it: it takes no more requests then,
# and finishes those that it has.
exec "$HPCGAN" serve "${RUNS[@]}" --host 0.0.0.0 --port 0 --workers "$WORKERS" \
    --token-file "$FOLDER/token" --address-file "$FOLDER/address.json"
