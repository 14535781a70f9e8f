#!/usr/bin/env bash
# bash run_eval_teacher.sh GPU TASK MODEL_ID; GPU is a number or cpu; DATA_ROOT and RESULT_DIR: see tools/evaluate.py
exec python "$(dirname "$0")/../tools/evaluate.py" --method teacher "$@"
