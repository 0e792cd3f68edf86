#!/usr/bin/env bash
# Submit the missing runs of a grid: one array per model, with the resources that the model needs.
#
#     slurm/submit.sh +experiment=paper data.root=DATA out=RUNS
#     RUNS_A_TASK=4 AT_MOST=16 slurm/submit.sh +experiment=zoo model=zoo/llama,zoo/opt
#
# Each array task does RUNS_A_TASK runs; at most AT_MOST tasks of an array run at a time.
set -euo pipefail
runs_a_task=${RUNS_A_TASK:-4}
at_most=${AT_MOST:-8}
if [ -x .venv/bin/python ]; then PATH="$PWD/.venv/bin:$PATH"; fi

# ---- SITE: resources of a task, by model. Set partition and account here, or in SBATCH_PARTITION
#      and SBATCH_ACCOUNT. -------------------------------------------------------------------------
resources() {
  case $1 in
    zoo/*) echo "--cpus-per-task=1 --mem=2G --time=12:00:00" ;;
    phi-2) echo "--gpus-per-task=1 --cpus-per-task=8 --mem=32G --time=24:00:00" ;;
    *-7b | *-6.7b) echo "--gpus-per-task=1 --cpus-per-task=8 --mem=64G --time=48:00:00" ;;
    *) echo "--gpus-per-task=1 --cpus-per-task=8 --mem=64G --time=24:00:00" ;;
  esac
}
# --------------------------------------------------------------------------------------------------

# Chunks are cut from all runs of a model, finished or not, so that a restarted task always gets the
# same chunk.
python -P -m neuroal.grid plan "$@" --models | while read -r model runs missing; do
  [ "$missing" -gt 0 ] || continue
  others=()
  for override in "$@"; do [[ $override == model=* ]] || others+=("$override"); done
  chunks=$(((runs + runs_a_task - 1) / runs_a_task))
  # shellcheck disable=SC2046
  sbatch $(resources "$model") --job-name="neuroal-${model//\//-}" --array="1-$chunks%$at_most" \
    "$(dirname "$0")/array.sbatch" "${others[@]}" "model=$model" </dev/null
done
