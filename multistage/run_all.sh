#!/usr/bin/env bash
# bash run_all.sh CHAIN [flags of train.py]: the stages of a chain in order, each from the student of the one before.
# The same command continues where a killed one was. RUNS: the folder that the runs lie in, without it where train.py
# saves; PYTHON: what starts train.py, such as "python -m paddle.distributed.launch --nproc_per_node 2".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
case ${1:-} in
  minilm_bottle) stages="Distill/minilm_bottle_distill Distill/minilm_rec_bottle_distill multilingual/minilm_rec_bottle_mcl" ;;
  minilm) stages="Distill/minilm_rec_distill multilingual/minilm_rec_mcl" ;;
  xlmr_bottle) stages="Distill/xlmr_bottle_distill Distill/xlmr_rec_bottle_distill multilingual/xlmr_rec_bottle_mcl" ;;
  xlmr) stages="Distill/xlmr_rec_distill multilingual/xlmr_rec_mcl" ;;
  cpu_bottle) stages="cpu/mse cpu/bottle_distill cpu/rec_bottle_distill cpu/rec_bottle_mcl" ;;
  cpu) stages="cpu/mse cpu/rec_distill cpu/rec_mcl" ;;
  *) echo "error: bash run_all.sh CHAIN [flags of train.py]; CHAIN: minilm_bottle minilm xlmr_bottle xlmr cpu_bottle cpu" >&2
     exit 2 ;;
esac
shift
for stage in $stages; do
  echo "== $stage"
  name=$(sed -n 's/^identifier = //p' "$here/config/$stage.config")
  ${PYTHON:-python} "$here/train.py" --config "$stage.config" ${RUNS:+--logdir "$RUNS/$name"} "$@"
done
