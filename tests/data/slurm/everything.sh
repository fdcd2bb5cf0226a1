#!/bin/bash
#SBATCH --job-name=rpv-big
#SBATCH --nodes=64
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=1-12:30:00
#SBATCH --partition=gpu,gpu-long
#SBATCH --account=m1234
#SBATCH --qos=regular
#SBATCH --reservation=school_2
#SBATCH --constraint=gpu&hbm80g
#SBATCH --gpus-per-node=4
#SBATCH --mem=200G
#SBATCH --nodelist=nid[001-063],nid100
#SBATCH --exclude=nid00[7-9]
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail
cd /home/user/hpcgan
source /home/user/hpcgan/slurm/site.sh
# The supervisor takes the place of this shell, so that Slurm's signals reach it.
exec /home/user/hpcgan/.venv/bin/python -m hpcgan supervise --requeues 7 --retries 1 -- train /home/user/hpcgan/configs/rpv.yaml training.epochs=3 --run /scratch/runs/rpv
