#!/usr/bin/env bash
# bash run_eval_student_kd.sh GPU TASK MODEL_ID; GPU is a number or cpu; STUDENT_DIR, DATA_ROOT and RESULT_DIR: see tools/evaluate.py
exec python "$(dirname "$0")/../tools/evaluate.py" --method kd "$@"
