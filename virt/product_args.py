"""Flags of encode.py, score.py and eval_flops.py."""

import os
from dataclasses import dataclass

from simple_parsing import field

from distill.errors import UserError
from distill.options import ForwardOptions, RuntimeOptions, option

_AS_OLDER = "as in older commands; nothing is trained or read here"


@dataclass
class ProductOptions(RuntimeOptions):
    """The finished model, and the store of its documents."""

    model_path: str = option("", "dual encoder: a folder of sbert_distill.py", alias="student_path")
    store: str = option("", "folder of the document store")

    def require(self, **needed: str) -> None:
        """Raises UserError for a flag of these, {name: what it is}, or of this class, that was not given."""
        needed |= {"model_path": "a dual encoder's folder, which sbert_distill.py makes", "store": "the store's folder"}
        for flag, what in needed.items():
            if not getattr(self, flag):
                raise UserError(f"--{flag} is needed: {what}")
        if os.path.isfile(self.model_path):
            raise UserError(f"--model_path {self.model_path}: a file; name the folder that sbert_distill.py made")


@dataclass
class EncodeArgs(ProductOptions, ForwardOptions):
    """Read documents once and for all."""

    corpus: str = option("", "the documents: .txt (one a line), .tsv, .csv or .jsonl")
    text_column: str | None = option(
        None, "column of the texts; without it `text`, or a lone `sentence`; jsonl: or its only key"
    )
    id_column: str | None = option(None, "column of the documents' names; without it they are called by number, from 1")
    batch_size: int = option(32, "documents a forward pass", low=1)
    overwrite: bool = option(False, "replace another store in --store")


@dataclass
class ScoreArgs(ProductOptions):
    """Rank stored documents for queries."""

    texts: list[str] = field(default_factory=list, positional=True, nargs="*", help="queries, or --queries")
    queries: str | None = option(None, "file of queries: .txt (one a line), .tsv, .csv or .jsonl")
    query_column: str | None = option(
        None, "column of the queries; without it `text`, or a lone `sentence`; jsonl: or its only key"
    )
    query_id_column: str | None = option(
        None, "column of the queries' names; without it they are called by number, from 1"
    )
    candidates: str | None = option(
        None,
        "file of documents' names, a line each, or `query TAB document` by their names, where a query may have "
        "none; without it all documents",
    )
    top_k: int = option(10, "documents shown for a query", low=1)
    label: str | None = option(None, "class whose probability ranks; without it entailment, or else the last")
    output: str | None = option(None, "file to write, .tsv; without it the terminal")


@dataclass
class FlopsArgs:
    """Count the operations of a model."""

    model_type: str = option(
        "late_fusion", "what is counted; bert: the cross-encoder alone",
        choices=("late_fusion", "sbert", "bi_encoder", "poly", "col", "deformer", "dipair", "bert"),
    )  # fmt: skip
    bert_config_file: str | None = option(None, "config of the BERT; without it BERT-base")
    task_name: str = option("BoolQ", "task whose number of classes the head has")
    max_seq_length_query: int = option(64, "tokens of the query, [CLS] and [SEP] counted", low=3)
    max_seq_length_doc: int = option(328, "tokens of the document", low=3)
    max_seq_length_sbert: int | None = option(None, "tokens of both, where they are alike", low=3)
    pooling_strategy: str = option("mean", "what is read of the last states", choices=("mean", "cls"))
    use_resnet_predict: bool = option(True, "late_fusion: a residual layer before the prediction")
    poly_first_m: int = option(64, "poly: states that are kept of the document", low=1)
    colbert_dim: int = option(128, "col: length of its vectors", low=1)
    vocab_file: str | None = option(None, _AS_OLDER)
    init_checkpoint: str | None = option(None, _AS_OLDER)
    data_dir: str | None = option(None, _AS_OLDER)
    output_dir: str | None = option(None, _AS_OLDER)
    test_flie_name: str | None = option(None, _AS_OLDER)
    do_train: bool = option(False, _AS_OLDER)
    do_eval: bool = option(True, _AS_OLDER)
    do_predict: bool = option(False, _AS_OLDER)
    do_save: bool = option(False, _AS_OLDER)
    train_batch_size: int = option(1, _AS_OLDER)
    learning_rate: float = option(5e-5, _AS_OLDER)
    num_train_epochs: float = option(5.0, _AS_OLDER)
