"""run_glue.py under its other published name; the same flags.

python run_bert_finetune.py --task_name SST-2 --data_dir data/glue_data --model_name_or_path bert-base-uncased
"""

from distill.cli import run
from glue.run_glue import main

if __name__ == "__main__":
    run(main)
