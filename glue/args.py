"""Flags of run_glue.py and run_bert_finetune.py."""

from dataclasses import dataclass

from distill.options import RuntimeOptions, TaskOptions, TrainOptions, option


@dataclass
class GlueArgs(TaskOptions, TrainOptions, RuntimeOptions):
    """Fine-tune a BERT on a task; its best checkpoint is a teacher."""

    model_type: str = option("bert", "architecture", choices=("bert",))
    model_name_or_path: str = option(
        "bert-base-uncased", "folder of a BERT (PaddleNLP or PyTorch format), or a name PaddleNLP downloads"
    )
    max_seq_length: int | None = option(
        None, "longest input in tokens, special tokens counted; without it 128, or with --do_train false that of the "
        "model's run.yaml", low=4,
    )  # fmt: skip
    learning_rate: float = option(2e-5, "peak learning rate", alias="lr", above=0)
    warmup_proportion: float = option(0.1, "share of all steps over which the rate rises from 0", low=0, high=1)
    weight_decay: float = option(0.01, "decoupled decay of weights (not of biases and layer norms)", low=0)
    do_train: bool = option(True, "fine-tune; without it --model_name_or_path is a fine-tuned folder", cosmetic=True)
    do_predict: bool = option(False, "write the GLUE submission file of the test rows", cosmetic=True)
