#!/usr/bin/env bash
# The same training on several nodes, one rank a GPU; nodes must be alike and share the folder of submission.
#
#   sbatch --nodes=4 slurm/pretrain_multinode.sh --teacher bert-base-uncased --store data/wiki-books
#
# Stops, requeues itself and resumes as slurm/pretrain_8xv100.sh does, which has the rest of what there is to know. The
# number of ranks is part of a run's checkpoints: resume on as many nodes. The network between nodes is NCCL's matter
# (NCCL_SOCKET_IFNAME, NCCL_IB_HCA ...).
#
# RANKS_PER_NODE in the environment: ranks a node, where that is not its number of GPUs.
# FIRST_NODE_ADDRESS: of the job's first node, where its name is not how the others reach it.

#SBATCH --job-name=distil
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append

# ---- site-specific lines: what the cluster has; below the first command SLURM would not read them ----
#SBATCH --nodes=2
#SBATCH --gres=gpu:v100:8
#SBATCH --cpus-per-task=40
#SBATCH --time=48:00:00
##SBATCH --partition=NAME
##SBATCH --account=NAME
# ---- end of site-specific lines ----

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?this is a batch script: sbatch slurm/...}"
[[ -f slurm/common.sh ]] || { echo "error: submit from the repository's root, not from $PWD" >&2; exit 78; }
. slurm/common.sh
# ---- site-specific lines, as in slurm/pretrain_8xv100.sh ----
# ---- end of site-specific lines ----

# The recipe's own folder, where none is given: a requeued job must find it again.
recipe=$(value_of recipe distilbert-base-uncased "$@")
train python slurm/start_node.py launch/pretrain.py \
    --deepspeed ds_config/zero1.json \
    --recipe "$recipe" \
    --output_dir "runs/$(basename "$recipe" .toml)" \
    "$@"
