#!/bin/bash
# IPython engines, one a task, which a notebook on the login node connects to: sbatch slurm/ipyparallel.sh, then
#     import ipyparallel as ipp; view = ipp.Client(connection_file="runs/ipython-JOBID/security/ipcontroller-client.json")[:]
#SBATCH --job-name=ipyparallel
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.out

# --- settings --------------------------------------------------------------------------------------
BIN=.venv/bin              # made by `make setup`, then .venv/bin/pip install 'ipyparallel>=8.6'
# ----------------------------------------------------------------------------------------------------

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
[ -x "$BIN/ipcontroller" ] || { echo "no $BIN/ipcontroller here: $BIN/pip install 'ipyparallel>=8.6'" >&2; exit 2; }
source slurm/site.sh

# The connection files hold the keys: nobody else may read them.
umask 077
FOLDER=$PWD/runs/ipython-${SLURM_JOB_ID:?submit it with sbatch}
mkdir -p "$FOLDER"
# All addresses: engines on the other nodes and the login node must reach it. Messages are encrypted (CURVE).
"$BIN/ipcontroller" --profile-dir="$FOLDER" --ip='*' --IPController.enable_curve=True &
controller=$!
trap 'kill $controller 2>/dev/null || true' EXIT
until [ -s "$FOLDER/security/ipcontroller-engine.json" ]; do
    kill -0 $controller 2>/dev/null || { echo "the controller did not start, see above" >&2; exit 1; }
    sleep 0.2
done
# Ranks of one MPI world, so that Horovod works among them.
srun --mpi="${HPCGAN_SRUN_MPI:-pmix}" --kill-on-bad-exit=1 \
    "$BIN/ipengine" --file="$FOLDER/security/ipcontroller-engine.json" --mpi
