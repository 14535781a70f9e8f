"""Flags of small.py and bert_distill.py; names and spellings are those of Tang et al.'s published commands where they
had one."""

from dataclasses import dataclass

from distill.errors import UserError
from distill.options import DistillOptions, RuntimeOptions, TaskOptions, TeacherOptions, TrainOptions, option


@dataclass
class StudentArgs(TaskOptions, TrainOptions, RuntimeOptions):
    """Train a BiLSTM on a task, alone."""

    model_name: str = option(
        "bert-base-uncased", "BERT whose wordpieces the student reads: a folder, or a name PaddleNLP downloads"
    )
    tokens: str = option(
        "auto", "what the student reads; auto: wordpieces, words in Chinese", choices=("auto", "wordpieces", "words")
    )
    vocab_path: str | None = option(
        None, "words: file of the student's words, one a line; without it they are taken from the training rows"
    )
    vocab_size: int | None = option(
        None, "words: how many, the most frequent first; otherwise the size that the vocabulary must have", low=3
    )
    use_pretrained_emb: bool = option(
        False, "start from --embedding_name, or without it from BERT's own wordpiece table reduced by PCA"
    )
    embedding_name: str | None = option(None, "file of word vectors: GloVe or word2vec text, or word2vec .bin")
    emb_dim: int = option(300, "size of the embeddings", low=1)
    hidden_size: int = option(300, "size of the LSTM's state in each direction", low=1)
    num_layers: int = option(1, "LSTM layers", low=1)
    dropout_prob: float = option(0.0, "dropout on the embeddings and before each linear layer", low=0, high=0.9)
    init_scale: float = option(0.1, "weights start uniform in +- this", above=0)

    n_iter: int = option(0, "augmented copies of each training row", low=0)
    p_mask: float = option(0.1, "augmentation: probability of masking a unit", low=0, high=1)
    p_pos: float = option(
        0.0, "augmentation: probability of replacing a word by one of the same part of speech", low=0, high=1
    )
    pos_file: str | None = option(
        None, "augmentation: `word TAB part-of-speech` lines for --p_pos; Chinese has jieba's without it"
    )
    p_ng: float = option(0.25, "augmentation: probability of keeping an n-gram only (single texts)", low=0, high=1)
    whole_word_mask: bool = option(False, "augmentation: mask whole words, not wordpieces")

    learning_rate: float = option(1.0, "peak learning rate", alias="lr", above=0)
    optimizer: str = option("adadelta", "optimizer", choices=("adamw", "adam", "adadelta"))
    scheduler: str = option(
        "constant", "learning rate after warm-up: falls to 0, or stays", choices=("linear", "constant")
    )
    num_train_epochs: int = option(
        12, "passes over the training rows and their copies", alias=("max_epoch", "epochs"), low=1
    )
    batch_size: int = option(64, "rows a step and device", alias="train_batch_size", low=1)
    lazy_embeddings: bool = option(
        False, "adam only: update just the rows of the batch in the embedding table (faster, not the same optimiser)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding_name and not self.use_pretrained_emb:
            raise UserError("--embedding_name needs --use_pretrained_emb true")
        if self.lazy_embeddings and self.optimizer != "adam":
            raise UserError("--lazy_embeddings needs --optimizer adam")
        if self.p_mask + self.p_pos > 1:
            raise UserError("--p_mask and --p_pos: their sum must be at most 1")


@dataclass
class DistillArgs(StudentArgs, TeacherOptions, DistillOptions):
    """Distil a fine-tuned BERT into a BiLSTM by its logits."""

    model_name: str | None = option(
        None, "checked against the teacher when it is a folder: the student reads the teacher's wordpieces"
    )
    alpha: float = option(1.0, "weight of the teacher's term; 1 - alpha weights the labels'", low=0, high=1)
    n_iter: int | None = option(
        None,
        "augmented copies of each training row, whose logits are computed once; by default 20, with --use_aug 0",
        low=0,
    )
    use_aug: bool = option(False, "train on the rows that data_augmentation.py wrote beside the training rows")
    unlabelled_file: str | None = option(
        None,
        "further texts that only the teacher labels: .txt, one a line (pairs: TAB between), or .tsv, .csv or .jsonl "
        "with the columns of the training rows' texts",
    )
    num_train_epochs: int = option(
        6, "passes over the training rows and their copies", alias=("max_epoch", "epochs"), low=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_iter is None:
            self.n_iter = 0 if self.use_aug else 20
