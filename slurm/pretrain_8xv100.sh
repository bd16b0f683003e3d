#!/usr/bin/env bash
# The paper's job: DistilBERT on one node with 8 x V100, about 90 hours.
#
#   sbatch slurm/pretrain_8xv100.sh --teacher bert-base-uncased --store data/wiki-books
#
# Arguments are those of launch/pretrain.py and come after the defaults below. Submit it again after a wall time or a
# failure: the same command resumes from the newest checkpoint, and does nothing once the run is done.
# Software: the .venv that `make setup` makes. Site-specific lines (partition, account, modules) belong below the mark.

#SBATCH --job-name=distil
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:v100:8
#SBATCH --cpus-per-task=40
#SBATCH --time=96:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
# ---- site-specific lines ----

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
export PATH="$PWD/.venv/bin:$PATH"

exec deepspeed --num_gpus "${SLURM_GPUS_ON_NODE:-8}" launch/pretrain.py \
    --deepspeed ds_config/zero1.json \
    --recipe distilbert-base-uncased \
    --output_dir runs/distilbert-base-uncased \
    "$@"
