#!/bin/bash
# One training for each line of settings: sbatch --array=1-8 slurm/sweep_array.sh
# Every element is a run of its own, which checkpoints before the limit and queues again until it is done.
#SBATCH --job-name=sweep
#SBATCH --array=1-8%4
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --time=01:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.out

# --- settings --------------------------------------------------------------------------------------
CONFIG=configs/rpv_gan.yaml
DATA=data/rpv              # make it first: hpcgan data rpv --out data/rpv --events 24000 --mass 1400,850 --seed 1
TRIALS=slurm/trials.txt    # line N: what element N changes, as key=value words
RUNS=runs/sweep
HPCGAN=.venv/bin/hpcgan    # made by `make setup`
# ----------------------------------------------------------------------------------------------------

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
[ -x "$HPCGAN" ] || { echo "no $HPCGAN here: submit from the repository, after 'make setup'" >&2; exit 2; }
source slurm/site.sh

number=${SLURM_ARRAY_TASK_ID:?submit it as an array, with sbatch --array=1-N}
read -r -a changes < <(grep -v '^#' "$TRIALS" | sed -n "${number}p") || true
[ ${#changes[@]} -gt 0 ] || { echo "$TRIALS has no line $number: submit with --array=1-N for N lines" >&2; exit 2; }
echo "element $number: ${changes[*]}"
exec "$HPCGAN" supervise -- train "$CONFIG" data.path="$DATA" "${changes[@]}" --run "$RUNS/$number"
