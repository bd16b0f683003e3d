#!/usr/bin/env bash
# Text to token store, on the CPUs of one node.
#
#   sbatch slurm/binarize.sh --text 'wikipedia/*.jsonl.gz' --tokenizer bert-base-uncased --out data/wiki
#
# Submit from the repository's root. Arguments are those of launch/binarize.py; patterns in quotes are expanded there.
# A minute before the wall time, of more than three, the job ends the build and requeues itself; the build goes on where
# it was, and so it does after scancel or a failure, when the same command is submitted again.

#SBATCH --job-name=binarize
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@60
#SBATCH --requeue
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append

# ---- site-specific lines: what the cluster has; below the first command SLURM would not read them ----
#SBATCH --cpus-per-task=32
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

for word in "$@"; do
    [[ $word != --overwrite ]] || {
        echo "error: --overwrite would throw the build away at each requeue; remove the old store instead" >&2
        exit 78
    }
done
build python launch/binarize.py --workers "$SLURM_CPUS_PER_TASK" "$@"
