#!/usr/bin/env bash
# Several machines under Slurm, on one shared file system. Takes a launch file, a script and its flags:
#   sbatch --nodes 2 --gpus-per-node 4 shared/launch/slurm.sh shared/launch/zero2.yaml pretraining/run_mlm.py --config pretraining/recipes/base.yaml --packed_dataset data/packed
# Two minutes before the time is up the run finishes its step, saves, and is queued again (when it is preempted as well,
# if the cluster warns jobs then); it goes on from there, since the same command in the same --output_dir resumes.
# Without GPUs it starts a process for each core of --cpus-per-task, on each machine: with zero2_cpu.yaml, say.
#SBATCH --job-name=tiny-olm
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -uo pipefail

launch_file=$1
shift
command -v accelerate >/dev/null || PATH=$PWD/.venv/bin:$PATH # the environment that make installs
processes=${SLURM_GPUS_ON_NODE:-${SLURM_CPUS_PER_TASK:-1}}
main_machine=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
signalled=no
# Once; and to the processes of all machines, not to this shell.
trap 'trap "" TERM; signalled=yes; echo "the time is nearly up: saving"; scancel --signal=TERM "$SLURM_JOB_ID"' TERM

# shellcheck disable=SC2016  # SLURM_NODEID is that of each machine
srun ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} bash -c 'exec accelerate launch --machine_rank "$SLURM_NODEID" "$@"' launch \
    --config_file "$launch_file" \
    --num_machines "$SLURM_NNODES" \
    --num_processes "$((SLURM_NNODES * processes))" \
    --main_process_ip "$main_machine" \
    --main_process_port "$((20000 + SLURM_JOB_ID % 20000))" \
    --deepspeed_multinode_launcher standard \
    "$@" &
training=$!

wait "$training"
code=$?
while kill -0 "$training" 2>/dev/null; do # a trapped signal ends a wait early
    wait "$training"
    code=$?
done
if [ "$signalled" = yes ] && [ "$code" != 0 ]; then # 0: it has ended in the meantime
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
