#!/bin/bash
# Weak scaling of a training: the same batch a rank on 1, 2, 4 ... ranks: sbatch slurm/scaling.sh
#SBATCH --job-name=scaling
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.out

# --- settings --------------------------------------------------------------------------------------
CONFIG=configs/rpv.yaml
DATA=data/rpv              # make it first: hpcgan data rpv --out data/rpv --events 24000 --mass 1400,850 --seed 1
RANKS=(1 2 4)
EPOCHS=2                   # the first one, which compiles, does not count
HPCGAN=.venv/bin/hpcgan    # made by `make setup`
# ----------------------------------------------------------------------------------------------------

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
[ -x "$HPCGAN" ] || { echo "no $HPCGAN here: submit from the repository, after 'make setup'" >&2; exit 2; }
source slurm/site.sh

RUNS=runs/scaling-${SLURM_JOB_ID:?submit it with sbatch}
for ranks in "${RANKS[@]}"; do
    "$HPCGAN" supervise --ranks "$ranks" --retries 0 --requeues 0 -- train "$CONFIG" data.path="$DATA" \
        training.epochs="$EPOCHS" scoring.every_epochs=0 --run "$RUNS/$ranks" ||
        echo "scaling: $ranks ranks failed, the others still count" >&2
done

"$(dirname "$HPCGAN")/python" - "$RUNS" "${RANKS[@]}" <<'TABLE'
import sys
from pathlib import Path

from hpcgan import records

folder, *ranks = sys.argv[1:]
print(f"{'ranks':>6} {'samples/s':>10} {'a rank':>8} {'efficiency':>11}")
first = None
for n in map(int, ranks):
    epochs = records.read(Path(folder) / str(n) / "metrics.jsonl", "epoch")[1:]
    if not epochs:
        print(f"{n:>6} {'failed':>10}")
        continue
    rate = sum(e["samples_per_second"] for e in epochs) / len(epochs)
    first = first or rate / n
    print(f"{n:>6} {rate:>10.0f} {rate / n:>8.0f} {rate / n / first:>11.2f}")
TABLE
