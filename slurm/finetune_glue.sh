#!/usr/bin/env bash
# The paper's Table 1: a student and its teacher fine-tuned on GLUE's nine tasks with five seeds, an element a GPU.
#
#   sbatch --array=0-8 slurm/finetune_glue.sh --model runs/distilbert/student --teacher bert-base-uncased
#   sbatch --array=0-8%4 slurm/finetune_glue.sh --model M --teacher T --ways plain,second,direct --tasks glue,imdb
#
# Submit from the repository's root. Arguments are those of launch/evaluate.py suite. The elements, from 0 on, share the
# pairs of task and seed; the one that is done last makes the tables, runs/suite/suite.md. Each stops, requeues itself
# and goes on as slurm/pretrain_8xv100.sh does; its JOBID is ARRAY_NUMBER, as squeue has it, also in NAME-JOBID.stop.
#
# RANKS_PER_NODE in the environment: ranks an element, where that is not its number of GPUs.

#SBATCH --job-name=suite
#SBATCH --array=0-8
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --output=%x-%A_%a.log
#SBATCH --open-mode=append

# ---- site-specific lines: what the cluster has; below the first command SLURM would not read them ----
#SBATCH --gres=gpu:v100:1
#SBATCH --cpus-per-task=5
#SBATCH --time=24:00:00
##SBATCH --partition=NAME
##SBATCH --account=NAME
# ---- end of site-specific lines ----

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?this is a batch script: sbatch slurm/...}"
[[ -f slurm/common.sh ]] || { echo "error: submit from the repository's root, not from $PWD" >&2; exit 78; }
. slurm/common.sh
# ---- site-specific lines, as in slurm/pretrain_8xv100.sh ----
# ---- end of site-specific lines ----

# Of a suite, all that its runs have come to. Other elements' steps count, too, so one that makes none may come back
# while they go on.
how_far() {
    local suite
    suite=$(value_of output_dir . "$@")
    printf '%s\n' "$suite"/*/*/checkpoints/step-* "$suite"/*/*/results.json
    stat --format='%n %Y %s' "$suite"/*/*/cross.json 2>/dev/null || : # grows by a figure at a time
}

train python slurm/start_node.py launch/evaluate.py suite \
    --deepspeed ds_config/zero1.json \
    --output_dir runs/suite \
    --only "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" \
    "$@"
