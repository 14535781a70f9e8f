"""Flags that recipes share, as dataclasses; a recipe's args.py inherits the ones it needs and adds its own.

Every field has a default, a unit where it has one, and a line of help. Bounds stand with the field and are checked
for all of them in one place (`distill.cli.parse`), so that a value that cannot work is refused by its flag before
anything is loaded.
"""

from dataclasses import dataclass
from typing import Any

from simple_parsing import field

from distill.errors import UserError


def option(
    default: Any,
    help: str,
    *,
    alias: str | tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    cosmetic: bool = False,
    bare: Any = None,
) -> Any:
    """A dataclass field with its help and bounds.

    alias: other spellings of the flag (without dashes); low, high: inclusive bounds; above: exclusive lower bound;
    cosmetic: the value cannot change a result, so a run may be continued with another one; bare: the value when the
    flag stands without one.
    """
    names = (alias,) if isinstance(alias, str) else alias
    bounds = {"allowed": choices, "low": low, "high": high, "above": above, "cosmetic": cosmetic}
    if choices:
        help = f"{help} ({' | '.join(choices)})"
    without_value = {} if bare is None else {"nargs": "?", "const": bare}
    return field(default=default, help=help, alias=[f"--{name}" for name in names], metadata=bounds, **without_value)


@dataclass
class TaskOptions:
    """Which task, and where its rows are."""

    task_name: str = option(
        "SST-2", "task: a GLUE name, BoolQ, ChnSentiCorp (or senta), or own with --train_file and --dev_file"
    )
    data_dir: str | None = option(
        None, "folder with the tasks' folders; without it PaddleNLP's cache, then its download", alias="glue_dir"
    )
    train_file: str | None = option(None, "own training rows: tsv, csv or jsonl with a header or keys")
    dev_file: str | None = option(None, "own dev rows")
    test_file: str | None = option(None, "own test rows")
    text_column: str | None = option(None, "own data: name of the text column")
    text_pair_column: str | None = option(None, "own data: name of the second text's column, for pairs")
    label_column: str | None = option(None, "own data: name of the label column")
    regression: bool = option(False, "own data: labels are numbers to predict, not classes")
    max_seq_length: int = option(128, "longest input in tokens, special tokens counted; longer rows are cut", low=4)


@dataclass
class TrainOptions:
    """The one training loop."""

    output_dir: str | None = option(None, "folder of the run and of its best model", cosmetic=True)
    overwrite: bool = option(False, "replace another run's content in --output_dir", cosmetic=True)
    num_train_epochs: int = option(3, "passes over the training rows", alias=("max_epoch", "epochs"), low=1)
    max_steps: int = option(-1, "stop after this many steps; -1: by epochs", low=-1)
    batch_size: int = option(32, "rows a step and device", alias="train_batch_size", low=1)
    eval_batch_size: int = option(128, "rows a batch in evaluation", low=1)
    learning_rate: float = option(5e-5, "peak learning rate", alias="lr", above=0)
    optimizer: str = option("adamw", "optimizer", choices=("adamw", "adam", "adadelta"))
    weight_decay: float = option(0.0, "decoupled decay of weights (not of biases and layer norms); adamw only", low=0)
    adam_epsilon: float = option(1e-6, "epsilon of adam, adamw and adadelta", above=0)
    warmup_proportion: float = option(0.0, "share of all steps over which the rate rises from 0", low=0, high=1)
    warmup_steps: int = option(0, "the same as a number of steps; takes precedence when above 0", low=0)
    scheduler: str = option(
        "linear", "learning rate after warm-up: falls to 0, or stays", choices=("linear", "constant")
    )
    max_grad_norm: float = option(1.0, "clip gradients to this global norm; 0: off", low=0)
    gradient_accumulation_steps: int = option(1, "batches whose gradients are joined in one step", low=1)
    logging_steps: int = option(50, "steps between log points", alias="log_freq", low=1, cosmetic=True)
    save_steps: int = option(500, "steps between checkpoints for resuming; 0: at epoch ends only", low=0, cosmetic=True)
    eval_steps: int = option(0, "steps between dev evaluations; 0: after each epoch", low=0)
    early_stopping_patience: int = option(
        0, "stop after this many evaluations without a better dev score; 0: off", low=0
    )
    amp: str = option("none", "mixed precision on GPU", choices=("none", "bf16", "fp16"))
    cpu_arrangement: str = option(
        "auto", "arithmetic arranged for a CPU when training on one, or paddle's own", choices=("auto", "none")
    )
    seed: int = option(42, "seed of initialisation, order and dropout", low=0)

    def __post_init__(self) -> None:
        super_init = getattr(super(), "__post_init__", None)  # of the other shared options, in a class that has both
        if super_init is not None:
            super_init()
        if self.weight_decay and self.optimizer in ("adam", "adadelta"):
            raise UserError(f"--weight_decay {self.weight_decay}: acts with --optimizer adamw only; set it to 0")


@dataclass
class RuntimeOptions:
    """Where it runs."""

    device: str = option("auto", "auto takes a GPU when there is one", choices=("auto", "cpu", "gpu"))
    n_gpu: int = option(1, "as in older commands: 0 means --device cpu, 1 one device", low=0)

    def __post_init__(self) -> None:
        super_init = getattr(super(), "__post_init__", None)
        if super_init is not None:
            super_init()
        if self.n_gpu > 1:
            raise UserError(
                "--n_gpu: several devices are used by `python -m paddle.distributed.launch SCRIPT ...`, without --n_gpu"
            )
        if self.n_gpu == 0:
            if self.device == "gpu":
                raise UserError("--n_gpu 0 contradicts --device gpu; leave one of them out")
            self.device = "cpu"


@dataclass
class ForwardOptions:
    """Passes without gradient."""

    forward_precision: str = option(
        "fp32",
        "arithmetic of passes without gradient on a CPU; bf16 where the processor has it",
        choices=("fp32", "bf16"),
    )


@dataclass
class TeacherOptions(ForwardOptions):
    """The teacher and the cache of its outputs."""

    teacher_path: str | None = option(
        None, "fine-tuned teacher: its folder, or a weight file in it", alias="teacher_dir"
    )
    cache_dir: str = option("~/.cache/paddle-distill", "folder of the cached teacher outputs", cosmetic=True)
    cache_limit_gb: float = option(
        10.0, "size limit of the cache in GB; what does not fit is computed again each time", low=0, cosmetic=True
    )
    skip_teacher_check: bool = option(
        False, "go on with a teacher whose label order or dev score is wrong", cosmetic=True
    )

    def require_teacher(self) -> None:
        """Raises UserError without --teacher_path."""
        if not self.teacher_path:
            raise UserError("--teacher_path is needed: the folder of a fine-tuned BERT (glue/run_glue.py makes one)")


@dataclass
class DistillOptions:
    """What every distillation recipe offers."""

    control: int = option(
        0,
        "train as many students (1 without a number) on the labels alone too and compare: is it the teacher?",
        low=0,
        cosmetic=True,
        bare=1,
    )

    def __post_init__(self) -> None:
        super_init = getattr(super(), "__post_init__", None)
        if super_init is not None:
            super_init()
        if self.control and getattr(self, "early_stopping_patience", 0):
            raise UserError(
                "--control trains both arms for as many steps, --early_stopping_patience each for its own; leave one "
                "of the two out"
            )


@dataclass
class StudentOptions:
    """The student's shape, and the weights it starts with."""

    student_model_name_or_path: str | None = option(
        None, "BERT that the student starts from: a folder, or a name PaddleNLP downloads; without it the teacher"
    )
    student_init: str = option(
        "first", "first: the weights of its first layers; random; or those of chosen layers by number, such as 4,8,12"
    )
    student_layers: int | None = option(None, "layers of the student; without it all of that BERT's", low=1)
    student_hidden_size: int | None = option(
        None, "random only: width of the student; without it, and for the next two, as that BERT", low=1
    )
    student_intermediate_size: int | None = option(None, "random only: width of its feed-forward layers", low=1)
    student_heads: int | None = option(None, "random only: its attention heads", low=1)


@dataclass
class SoftTargetOptions:
    """The teacher's logits and the labels as targets: alpha * soft + (1 - alpha) * hard."""

    alpha: float = option(0.2, "weight of the teacher's term; 1 - alpha weights the labels'", low=0, high=1)
    T: float = option(1.0, "temperature that divides both models' logits in kl", alias="temperature", above=0)
    soft_loss: str = option(
        "kl", "the teacher's term: KL divergence, or squared error of logits (always so in regression)",
        choices=("kl", "mse"),
    )  # fmt: skip
    soft_reduction: str = option(
        "batchmean", "kl: sum over classes, or mean over them too, which is as many times smaller",
        choices=("batchmean", "mean"),
    )  # fmt: skip
    scale_t2: bool = option(True, "kl: multiply by T^2, which keeps the size of the gradient when T changes")
