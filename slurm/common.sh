# What the batch scripts share: where they run, how they stop before the wall time, and when they go on by themselves.
# Sourced from the folder of submission, because SLURM runs a copy of the batch script from a folder of its own.

asked=nobody # who asked to stop: nobody, "clock" (the wall time is near), or "slurm" (scancel, preemption, requeue)
# A signal's default is to end this script. What was asked first counts: at the wall time USR1 is followed by TERM.
by_clock='[[ $asked != nobody ]] || asked=clock'
by_slurm='[[ $asked != nobody ]] || asked=slurm'
trap "$by_clock" USR1
trap "$by_slurm" TERM

srun_options=()
container=()

stopped=75     # exit code of a program that stopped on request and can go on
killed=128     # codes above it are those of a program that a signal ended
refused=78     # exit code of a mistake in how the job was submitted
least=120      # seconds that a piece must have before the signal that ends it, which may come a minute early
our_word=job    # in a stop file that is ours; a user's is empty
# The job's name; of an array an element's own, since the number of one of them stands for the whole array.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}

# The address at which all nodes reach the first one, and a port of this job's own below those that systems hand out.
export MASTER_ADDR MASTER_PORT=$((15000 + SLURM_JOB_ID % 15000))
MASTER_ADDR=127.0.0.1
if ((SLURM_JOB_NUM_NODES > 1)); then
    hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
    MASTER_ADDR=${FIRST_NODE_ADDRESS:-${hosts%%$'\n'*}}
fi

say() {
    printf '%s: job %s: %s\n' "$(date '+%F %T')" "$job" "$*"
}

# Refuse a job that would be told to stop before it can have done anything, and requeue itself for ever.
check_wall_time() {
    local margin=$least shown ends
    [[ ! $(<"$0") =~ $'\n#SBATCH --signal=B:USR1@'([0-9]+) ]] || ((margin += BASH_REMATCH[1]))
    shown=$(scontrol --oneliner show job "$job") || return 0
    [[ $shown =~ \ EndTime=([^ ]+) ]] && ends=$(date -d "${BASH_REMATCH[1]}" +%s 2>/dev/null) || return 0
    if ((ends - $(date +%s) <= margin)); then
        say "error: the wall time is too short: more than $margin s must be left at the start; sbatch --time" >&2
        exit "$refused"
    fi
}

# run_on_nodes COMMAND...: one copy a node, until all have ended. Sets code, the highest of their exit codes.
run_on_nodes() {
    [[ ! -d .venv/bin ]] || PATH="$PWD/.venv/bin:$PATH"  # before what a module may have put there
    export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" # an image has what requirements.txt lists, and not us
    say "start $((${SLURM_RESTART_COUNT:-0} + 1)) on $SLURM_JOB_NODELIST:$(printf ' %q' "$@")"
    # Not killed as soon as one fails, which would hide the exit code of the others, but when they have had the time to
    # notice by themselves (--silence_seconds). srun does not take the CPUs from sbatch by itself.
    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
        --kill-on-bad-exit=0 --wait=180 ${srun_options[@]+"${srun_options[@]}"} ${container[@]+"${container[@]}"} \
        "$@" &
    nodes=$!
    [[ $asked != clock ]] || kill -USR1 $$ # again: it came before there was anything to end
    # A trap runs at once only while bash waits, and ends the waiting.
    while kill -0 "$nodes" 2>/dev/null; do wait "$nodes" || true; done
    code=0
    wait "$nodes" || code=$?
}

# Hand the job back to the queue. SLURM then ends this script as it would any job, which is no request of anybody's.
requeue() {
    trap '' TERM USR1
    if [[ $(scontrol --oneliner show job "$job") == *" JobState=CANCELLED"* ]]; then exit "$code"; fi
    say "goes on by itself: requeued"
    scontrol requeue "$job" || { say "could not be requeued: submit the same command again"; exit "$code"; }
    exit 0
}

# value_of NAME DEFAULT ARGUMENTS...: what the program is going to take for its option --NAME: the last one given.
value_of() {
    local name=$1 value=$2 last='' word
    shift 2
    for word in "$@"; do
        [[ $last != "--$name" ]] || value=$word
        [[ $word != "--$name="* ]] || value=${word#*=}
        last=$word
    done
    printf '%s\n' "$value"
}

# how_far ARGUMENTS...: a text that changes when a program has made a step: the path of its newest checkpoint below its
# --output_dir. A script whose program keeps its steps elsewhere defines it anew.
how_far() {
    local run found
    run=$(value_of output_dir . "$@")
    found=("$run"/checkpoints/step-*)
    printf '%s\n' "${found[-1]}"
}

# train COMMAND...: a program that saves and leaves with $stopped when a file appears. Removing the file is ours.
train() {
    export DISTIL_STOP_FILE="$PWD/${SLURM_JOB_NAME//\//_}-$job.stop"
    local before by
    before=$(how_far "$@")
    check_wall_time
    [[ ! -s $DISTIL_STOP_FILE ]] || rm -f -- "$DISTIL_STOP_FILE" # left by an earlier start that was killed
    trap 'rm -f -- "$DISTIL_STOP_FILE"' EXIT
    local stop='[[ -e $DISTIL_STOP_FILE ]] || echo "$our_word" >"$DISTIL_STOP_FILE" || :'
    trap "$by_clock; $stop" USR1
    trap "$by_slurm; $stop" TERM
    code=$stopped
    if [[ $asked == nobody && ! -e $DISTIL_STOP_FILE ]]; then
        say "to stop it, and keep it stopped: touch $DISTIL_STOP_FILE"
        run_on_nodes "$@"
    fi
    by=$asked
    [[ ! -e $DISTIL_STOP_FILE || -s $DISTIL_STOP_FILE ]] || by=user
    case "$code $by" in
        "$stopped nobody" | "$stopped clock")
            [[ $(how_far "$@") == "$before" ]] || requeue
            say "not requeued, because it has made no step: give it more time (sbatch --time, --max_hours)"
            ;;
        "$stopped user") say "stopped by $DISTIL_STOP_FILE; submit the same command again to go on" ;;
        *) say "ended with exit code $code" ;;
    esac
    exit "$code"
}

# build COMMAND...: a program that may be killed at any moment and goes on when started again.
build() {
    check_wall_time
    trap "$by_clock; kill -TERM \"\${nodes:-}\" 2>/dev/null || :" USR1
    trap "$by_slurm" TERM
    run_on_nodes "$@"
    ((code > killed)) && [[ $asked == clock ]] && requeue
    say "ended with exit code $code"
    exit "$code"
}
