# What the batch scripts share: where they run, how they stop before the wall time, and when they go on by themselves.
# Sourced from the folder of submission, because SLURM runs a copy of the batch script from a folder of its own.

srun_options=()
container=()

stopped=75   # exit code of a program that stopped on request and can go on
killed=128   # codes above it are those of a program that a signal ended
asked=nobody # who asked to stop: nobody, "clock" (the wall time is near), or "slurm" (scancel, preemption, requeue)

# The address at which all nodes reach the first one, and a port of this job's own below those that systems hand out.
export MASTER_ADDR MASTER_PORT=$((15000 + SLURM_JOB_ID % 15000))
MASTER_ADDR=127.0.0.1
if ((SLURM_JOB_NUM_NODES > 1)); then
    hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
    MASTER_ADDR=${FIRST_NODE_ADDRESS:-${hosts%%$'\n'*}}
fi

say() {
    printf '%s: job %s: %s\n' "$(date '+%F %T')" "$SLURM_JOB_ID" "$*"
}

# run_on_nodes COMMAND...: one copy a node, until all have ended. Sets code, the highest of their exit codes.
run_on_nodes() {
    [[ ! -d .venv/bin ]] || PATH="$PWD/.venv/bin:$PATH" # before what a module may have put there
    say "start $((${SLURM_RESTART_COUNT:-0} + 1)) on $SLURM_JOB_NODELIST:$(printf ' %q' "$@")"
    # Not killed as soon as one fails, which would hide the exit code of the others, but a minute later. srun does not
    # take the CPUs from sbatch by itself.
    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
        --kill-on-bad-exit=0 --wait=60 "${srun_options[@]}" "${container[@]}" "$@" &
    nodes=$!
    # A trap runs at once only while bash waits, and ends the waiting.
    while kill -0 "$nodes" 2>/dev/null; do wait "$nodes" || true; done
    code=0
    wait "$nodes" || code=$?
}

# Hand the job back to the queue. SLURM then ends this script as it would any job, which is no request of anybody's.
requeue() {
    trap '' TERM USR1
    say "goes on by itself: requeued"
    scontrol requeue "$SLURM_JOB_ID" || { say "could not be requeued: submit the same command again"; exit "$code"; }
    exit 0
}

# train COMMAND...: a program that saves and leaves with $stopped when a file appears. Removing the file is ours.
train() {
    export DISTIL_STOP_FILE="$PWD/$SLURM_JOB_NAME-$SLURM_JOB_ID.stop"
    rm -f -- "$DISTIL_STOP_FILE"
    trap 'rm -f -- "$DISTIL_STOP_FILE"' EXIT
    trap 'asked=clock; : >>"$DISTIL_STOP_FILE"' USR1
    trap 'asked=slurm; : >>"$DISTIL_STOP_FILE"' TERM
    run_on_nodes "$@"
    local by=$asked
    [[ $by == nobody && -e $DISTIL_STOP_FILE ]] && by=user
    case "$code $by" in
        "$stopped nobody" | "$stopped clock") requeue ;;
        "$stopped user") say "stopped by $DISTIL_STOP_FILE; submit the same command again to go on" ;;
        *) say "ended with exit code $code" ;;
    esac
    exit "$code"
}

# build COMMAND...: a program that may be killed at any moment and goes on when started again.
build() {
    trap 'asked=clock; kill -TERM "$nodes"' USR1
    trap 'asked=slurm' TERM
    run_on_nodes "$@"
    ((code > killed)) && [[ $asked == clock ]] && requeue
    say "ended with exit code $code"
    exit "$code"
}
