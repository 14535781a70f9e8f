#!/usr/bin/env bash
# bash eval_flops_dipair.sh --max_seq_length_query 64 --max_seq_length_doc 328; see eval_flops.py
exec python "$(dirname "$0")/../virt/eval_flops.py" --model_type dipair "$@"
