#!/usr/bin/env bash
# The paper's job: DistilBERT on one node with 8 x V100, about 90 hours, in as many pieces as the wall time makes of it.
#
#   sbatch slurm/pretrain_8xv100.sh --teacher bert-base-uncased --store data/wiki-books
#   sbatch --time=24:00:00 --partition=long slurm/pretrain_8xv100.sh ...      # sbatch's options come first
#
# Submit from the repository's root. Arguments are those of launch/pretrain.py and come after the defaults below.
# Ten minutes before the wall time the run is saved and the job requeues itself; so it does after --max_hours, unless it
# has made no step. A wall time of twelve minutes or less is refused. After scancel or a failure submit the same
# command again: it resumes from the newest checkpoint, and does nothing once the run is done.
#
# To stop without losing a step, and stay stopped, waiting in the queue or not: touch NAME-JOBID.stop in the folder of
# submission, where NAME is the job's (distil, or what -J says); the log has the line. scancel saves, too, if SLURM's
# KillWait leaves the time.
#
# RANKS_PER_NODE in the environment: ranks a node, where that is not its number of GPUs.

#SBATCH --job-name=distil
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append

# ---- site-specific lines: what the cluster has; below the first command SLURM would not read them ----
#SBATCH --gres=gpu:v100:8
#SBATCH --cpus-per-task=40
#SBATCH --time=96:00:00
##SBATCH --partition=NAME
##SBATCH --account=NAME
# ---- end of site-specific lines ----

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?this is a batch script: sbatch slurm/...}"
[[ -f slurm/common.sh ]] || { echo "error: submit from the repository's root, not from $PWD" >&2; exit 78; }
. slurm/common.sh
# ---- site-specific lines: where the software comes from ----
# The software is the .venv that `make setup` makes. Modules that it needs, or a container in its place. An image must
# have `python` (3.11 or newer) on its PATH, what requirements.txt lists, and g++; this folder comes from outside, under
# the same path, and must have no .venv then.
# module load python/3.11 cuda/12.6
# container=(apptainer exec --nv --bind "$PWD" distil.sif)
# srun_options=(--container-image="$PWD/distil.sqsh" --container-mounts="$PWD" --container-workdir="$PWD")  # pyxis
# ---- end of site-specific lines ----

# The recipe's own folder, where none is given: a requeued job must find it again.
recipe=$(value_of recipe distilbert-base-uncased "$@")
train python slurm/start_node.py launch/pretrain.py \
    --deepspeed ds_config/zero1.json \
    --recipe "$recipe" \
    --output_dir "runs/$(basename "$recipe" .toml)" \
    "$@"
