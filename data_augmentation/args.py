"""Flags of data_augmentation.py; names and spellings are those of the published commands where they had one."""

from dataclasses import dataclass

from distill.errors import UserError
from distill.options import RuntimeOptions, TaskOptions, TeacherOptions, option

COPIES = {"CoLA": 30, "MNLI": 10, "MRPC": 30, "SST-2": 20, "STS-B": 30, "QQP": 10, "QNLI": 20, "RTE": 30}
"""The published --N of each task; others have 30."""


@dataclass
class AugmentArgs(TaskOptions, TeacherOptions, RuntimeOptions):
    """Add copies of the training rows in which words are replaced by what a masked LM and word vectors propose."""

    pretrained_bert_model: str = option(
        "bert-base-uncased", "BERT with a masked-LM head: a folder, or a name PaddleNLP downloads"
    )
    glove_embs: str = option(
        "none", "file of word vectors: GloVe or word2vec text, or word2vec .bin; none: the BERT's own wordpiece table"
    )
    N: int | None = option(None, "copies tried of each text; by default the task's published number, or 30", low=1)
    M: int = option(15, "words proposed for each place", low=1)
    p: float = option(0.4, "probability of replacing a word that may be replaced", low=0, high=1)
    mlm_mode: str = option(
        "per_word",
        "per_word masks one word a pass, as published; single_pass masks all words of a sentence at once, an "
        "approximation whose overlap is reported",
        choices=("per_word", "single_pass"),
    )
    keep_confidence: float = option(
        0.0,
        "keep only copies to which the teacher (--teacher_path) gives its class of the row with this probability; 0: "
        "all",
        low=0,
        high=1,
    )
    batch_size: int = option(64, "sentences a forward pass, fewer where they are long", low=1, cosmetic=True)
    seed: int = option(42, "seed of the replacements", low=0)
    overwrite: bool = option(False, "replace augmented rows that were made with other settings", cosmetic=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_confidence and not self.teacher_path:
            raise UserError("--keep_confidence needs --teacher_path, the folder of a fine-tuned BERT")
        if self.teacher_path and not self.keep_confidence:
            raise UserError("--teacher_path is used by --keep_confidence only; add it, or leave the teacher out")
