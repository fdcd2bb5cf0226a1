#!/bin/bash
#SBATCH --job-name=rpv
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=1:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail
cd /home/user/hpcgan
# The supervisor takes the place of this shell, so that Slurm's signals reach it.
exec /home/user/hpcgan/.venv/bin/python -m hpcgan supervise --requeues 100 --retries 3 -- train /home/user/hpcgan/configs/rpv.yaml training.epochs=3 --run /scratch/runs/rpv
