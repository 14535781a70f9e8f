"""Distil the layers of a BERT that is not fine-tuned into a smaller one, on plain text; task_distill.py starts from it.

    python general_distill.py --config general_cpu_4l --input_dir my_text.txt
    python general_distill.py --input_dir my_texts --teacher_model_name_or_path bert-base-uncased \
        --student_layers 4 --student_hidden_size 312 --student_intermediate_size 1200

Source: Jiao et al. 2020 (arXiv 1909.10351), section 3.2: the losses of embeddings, hidden states and attention scores.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill import naming, runtime
from distill.cli import cosmetic, parse, run, settings
from distill.errors import UserError
from tinybert.args import GeneralDistillArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the student's folder."""
    # 1. Flags, before anything heavy is imported.
    args = parse(GeneralDistillArgs, argv, __doc__)
    for flag in ("input_dir", "teacher_model_name_or_path"):
        if not getattr(args, flag):
            raise UserError(f"--{flag} is needed: {'plain text' if flag == 'input_dir' else 'a BERT'} to learn from")
    runtime.start(args.device, args.amp)
    import numpy as np
    from paddle import Tensor, nn

    from distill.data.stream import StreamBatches, TextLines
    from distill.encoders.initialise import start_digest
    from distill.teachers.encoder import EncoderTeacher
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run
    from models import KINDS
    from tinybert import data
    from tinybert.losses import layer_losses

    # 2. The text. 3. Teacher.
    lines = TextLines(args.input_dir)
    teacher = EncoderTeacher(args.teacher_model_name_or_path, args.max_seq_length)

    # 4. Student.
    student, projections = data.create(args, teacher.model, teacher.wordpiece, None, args.seed)
    layers = data.layer_map(args, student, teacher.model)

    # 5. Losses.
    def losses(batch: dict[str, Any]) -> dict[str, Tensor]:
        return layer_losses(student, projections, batch, args.loss_form)

    # 6. Fit; the teacher runs beside the student.
    folder = Path(args.output_dir or naming.student_dir("tinybert", "general", run_name(args)))
    content = {"teacher": teacher.digest, "rows": lines.digest, "student": start_digest(args, KINDS)}
    this_run = Run(folder, settings(args) | content, args.overwrite, cosmetic(args))
    if this_run.finished:
        runtime.log(f"{folder} holds this run, finished; --overwrite trains it again")
        return folder
    stream = StreamBatches(
        lines, teacher.wordpiece, args.max_seq_length, args.batch_size, args.seed, runtime.rank(), runtime.world_size()
    )

    def load(step: np.ndarray) -> dict[str, Any]:
        batch = stream.load(step)
        with this_run.timer("teacher"):
            return batch | {"padded": not batch["mask"].all()} | teacher.layers(batch, layers)

    trained = nn.LayerList([student] if projections is None else [student, projections])
    save = lambda best: data.save(best, student, projections, teacher.wordpiece)  # noqa: E731
    fit(trained, losses, Batches(stream, load), args, this_run, None, None, save)

    # 7. There is no task to evaluate it on. 8. Save.
    this_run.finish(train_rows=lines.rows)
    runtime.log(f"written: {folder}")
    return folder


def run_name(args: GeneralDistillArgs) -> str:
    """The run's name in its default folder."""
    return naming.run_id(
        "tinybert-general",
        epochs=args.num_train_epochs,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
    )


if __name__ == "__main__":
    run(main)
