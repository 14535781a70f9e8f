"""Flags of run_classifier_bipartition.py and sbert_distill.py, spelled as in the published commands."""

from dataclasses import dataclass

from distill.errors import UserError
from distill.options import DistillOptions, RuntimeOptions, TaskOptions, TeacherOptions, TrainOptions, option

_WITHOUT_EFFECT = {
    "use_all_layer_emb": "the states of all layers in the prediction",
    "use_weighted_att": "learned weights of the layers",
    "use_att_head": "an attention head of its own",
}


@dataclass
class PairOptions(TaskOptions):
    """Pairs, and the files that a published BERT comes in."""

    task_name: str = option("MRPC", "task of pairs: a GLUE name, BoolQ, or own with --train_file and --dev_file")
    max_seq_length: int | None = option(
        None, "longest pair in tokens, 2 L - 1 for two texts of L, [CLS] and [SEP] counted",
        alias="max_seq_length_bert", low=5,
    )  # fmt: skip
    max_seq_length_sbert: int | None = option(None, "the same by its texts: longest text in tokens", low=3)
    max_seq_length_query: int | None = option(None, "longest first text in tokens, where the two differ", low=3)
    max_seq_length_doc: int | None = option(None, "longest second text in tokens", low=3)
    pooling_strategy: str = option("mean", "what is read of the last states", choices=("mean", "cls"))
    bert_config_file: str | None = option(None, "config of a TensorFlow checkpoint; beside another it must be its own")
    vocab_file: str | None = option(None, "vocabulary of a TensorFlow checkpoint; beside another it must be its own")
    test_flie_name: str | None = option(None, "as in older commands: None", cosmetic=True)
    do_train: bool = option(True, "as in older commands: true", cosmetic=True)
    do_eval: bool = option(True, "as in older commands: true", cosmetic=True)
    do_predict: bool = option(False, "as in older commands: false", cosmetic=True)
    num_train_epochs: float = option(
        3, "passes over the training rows, a whole number", alias=("max_epoch", "epochs"), low=1
    )
    weight_decay: float = option(0.01, "decoupled decay of weights (not of biases and layer norms)", low=0)
    warmup_proportion: float = option(0.1, "share of all steps over which the rate rises from 0", low=0, high=1)
    cache_dir: str = option(
        "~/.cache/paddle-distill", "folder of converted checkpoints and cached teacher outputs", cosmetic=True
    )

    def __post_init__(self) -> None:
        super_init = getattr(super(), "__post_init__", None)
        if super_init is not None:
            super_init()
        if self.num_train_epochs != int(self.num_train_epochs):
            raise UserError(f"--num_train_epochs {self.num_train_epochs}: must be a whole number")
        self.num_train_epochs = int(self.num_train_epochs)
        for flag, way_out in (
            ("do_train", "a finished run's scores are in its results_eval.json"),
            ("do_eval", "the dev rows choose the best model, and are always evaluated"),
        ):
            if not getattr(self, flag):
                raise UserError(f"--{flag} false: {way_out}; leave it out")
        if self.do_predict or self.test_flie_name not in (None, "None"):
            flag = "--do_predict true" if self.do_predict else f"--test_flie_name {self.test_flie_name}"
            raise UserError(f"{flag}: test rows are not answered here; score.py answers any; leave it out")
        self.test_flie_name = None
        self.lengths  # noqa: B018 (refuses what does not fit together)

    @property
    def lengths(self) -> tuple[int, int] | None:
        """Longest first and second text in tokens, [CLS] and [SEP] counted; None where no flag says it."""
        query, doc, text, pair = (
            self.max_seq_length_query, self.max_seq_length_doc, self.max_seq_length_sbert, self.max_seq_length
        )  # fmt: skip
        if (query is None) != (doc is None):
            raise UserError("--max_seq_length_query and --max_seq_length_doc: give both")
        if query is not None and doc is not None:
            if text is not None:
                raise UserError("--max_seq_length_sbert: leave it out beside --max_seq_length_query and _doc")
            found = query, doc
        elif text is not None:
            found = text, text
        elif pair is not None:
            if pair % 2 == 0:
                raise UserError(
                    f"--max_seq_length {pair}: two texts of one length make an odd number, such as {pair + 1} for "
                    f"{pair // 2 + 1} each; or give --max_seq_length_query and --max_seq_length_doc"
                )
            found = (pair + 1) // 2, (pair + 1) // 2
        else:
            return None
        if pair not in (None, sum(found) - 1):
            raise UserError(f"--max_seq_length {pair}: texts of {found[0]} and {found[1]} tokens make {sum(found) - 1}")
        return found


@dataclass
class BipartitionArgs(PairOptions, TrainOptions, RuntimeOptions):
    """Fine-tune a BERT on pairs whose texts are padded each on its own; its best checkpoint is a teacher."""

    init_checkpoint: str = option(
        "bert-base-uncased", "BERT to start from: a folder, a weight file in one, a TensorFlow checkpoint's prefix, or "
        "a name PaddleNLP downloads", alias="model_name_or_path",
    )  # fmt: skip


@dataclass
class SbertDistillArgs(PairOptions, TrainOptions, TeacherOptions, DistillOptions, RuntimeOptions):
    """Teach a dual encoder what happens between two texts in a BERT that reads them together."""

    teacher_path: str | None = option(
        None, "teacher: a folder of run_classifier_bipartition.py, or a weight file in it",
        alias=("init_checkpoint_teacher", "teacher_dir"),
    )  # fmt: skip
    init_checkpoint_student: str | None = option(
        None, "BERT that the student starts from, as for --init_checkpoint; without it the teacher's",
        alias="student_model_name_or_path",
    )  # fmt: skip
    model_type: str = option(
        "late_fusion", "how the two texts are compared",
        choices=("late_fusion", "sbert", "bi_encoder", "poly", "col", "deformer", "dipair"),
    )  # fmt: skip
    use_resnet_predict: bool = option(False, "late_fusion: a residual layer before the prediction")
    plain_mean: bool = option(False, "late_fusion: padding takes part in the mean, as in the published code")
    squared_max: bool = option(False, "late_fusion, sbert: the square of max(u, v), as in the published code")
    poly_first_m: int = option(64, "poly: states that are kept of the second text", low=1)
    colbert_dim: int = option(128, "col: length of its vectors", low=1)
    use_kd_att: bool = option(True, "learn the attention between the two texts")
    kd_weight_att: float | None = option(
        None, "weight of that: 400 to 700 with mean, 0.1 to 1 with sum; without it 700 or 0.4", low=0
    )
    att_scaling: str = option(
        "mean", "squared differences of attention: their mean over heads and tokens, or their sum, which does not "
        "depend on the lengths", choices=("mean", "sum"),
    )  # fmt: skip
    att_query_mask: bool = option(
        True, "false: padding asks too, as in the published code, so each batch is padded to the full lengths"
    )
    use_kd_logit_mse: bool = option(False, "learn the teacher's logits by squared error")
    use_kd_logit_kl: bool = option(False, "learn the teacher's logits by KL divergence")
    kd_weight_logit: float = option(0.4, "weight of that", low=0)
    use_all_layer_emb: bool = option(False, "as in older commands: false, it did not help")
    use_weighted_att: bool = option(False, "as in older commands: false, it did not help")
    use_att_head: bool = option(False, "as in older commands: false, it did not help")
    do_save: bool = option(True, "as in older commands: the best student is kept in any case", cosmetic=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for flag, what in _WITHOUT_EFFECT.items():
            if getattr(self, flag):
                raise UserError(f"--{flag} true: {what} did not help, as the published commands say; leave it out")
        if self.use_kd_logit_mse and self.use_kd_logit_kl:
            raise UserError("--use_kd_logit_mse and --use_kd_logit_kl: one weight serves both; choose one")
        if self.kd_weight_att is None:
            self.kd_weight_att = 700.0 if self.att_scaling == "mean" else 0.4
        if self.use_kd_att and not self.kd_weight_att:
            raise UserError("--kd_weight_att 0: the attention would not be learned; pass --use_kd_att false")
        if (self.use_kd_logit_mse or self.use_kd_logit_kl) and not self.kd_weight_logit:
            raise UserError(
                "--kd_weight_logit 0: the logits would not be learned; leave --use_kd_logit_mse and _kl out"
            )
        if not (self.use_kd_att or self.use_kd_logit_mse or self.use_kd_logit_kl):
            raise UserError(
                "--use_kd_att false, and neither --use_kd_logit_mse nor --use_kd_logit_kl: nothing of the teacher is "
                "left; --control trains the same student on the labels alone, beside the distilled one"
            )

    @property
    def fixed(self) -> bool:
        """Whether every batch is padded to the full lengths, because padding counts."""
        return self.plain_mean or (self.use_kd_att and not self.att_query_mask)
