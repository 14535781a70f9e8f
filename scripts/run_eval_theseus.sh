#!/usr/bin/env bash
# bash run_eval_theseus.sh GPU TASK MODEL_ID (or TASK alone); GPU is a number or cpu; STUDENT_DIR, DATA_ROOT and RESULT_DIR: see tools/evaluate.py
exec python "$(dirname "$0")/../tools/evaluate.py" --method theseus "$@"
