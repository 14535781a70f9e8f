"""What the recipes with a BERT student share: a task with its teacher, and the way from losses to a student folder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from paddle import Tensor, nn

from distill import runtime
from distill.cli import cosmetic, settings
from distill.data.batching import BucketBatches
from distill.data.readers import Rows, digests
from distill.data.tasks import load_rows, load_task
from distill.data.wordpiece import report_cut
from distill.encoders.folder import save_bert
from distill.encoders.initialise import start_regression
from distill.evaluation.bert import BertDev
from distill.teachers.teacher import Teacher
from distill.training.fit import Batches, fit
from distill.training.monitor import Run


class Classification:
    """A task (regression too) and a BERT fine-tuned on it, whose wordpieces the student shares.

    task, teacher: as loaded, the teacher checked on the first dev split; texts, labels: the training rows, encoded;
    dev: the dev splits; content: what a run is made of besides its flags, to which a recipe may add.
    """

    def __init__(self, args: Any, load_train: Callable[..., Rows] | None = None) -> None:
        """args: TaskOptions, TrainOptions and TeacherOptions in one, as `options` below.

        load_train(task, args): the training rows, where they are not the task's own.
        """
        self.task = load_task(args)
        rows = {split: load_rows(args, self.task, split) for split in ("train", *self.task.dev_splits)}
        if load_train:
            rows["train"] = load_train(self.task, args)
        self.teacher = Teacher(args.teacher_path, self.task, args.max_seq_length, args)
        self.teacher.check(rows[self.task.dev_splits[0]])
        self.texts, self.labels = self.teacher.encode(rows["train"]), np.asarray(rows["train"].labels)
        report_cut("training rows", self.texts.cut, f"--max_seq_length {args.max_seq_length}")
        self.dev = BertDev(rows, self.teacher.wordpiece, self.task, args)
        self.content: dict[str, str | None] = {**digests(rows), "teacher": self.teacher.digest}

    def plan(self, options: Any) -> BucketBatches:
        """The batches of `options.seed`: the same whatever is trained on them."""
        lengths, seed = self.texts.lengths, options.seed
        return BucketBatches(lengths, options.batch_size, seed, True, runtime.rank(), runtime.world_size())

    def run(self, folder: Path, options: Any, **facts: Any) -> Run:
        """The run in `folder` of these flags, this content and the further facts."""
        return Run(folder, settings(options) | self.content | facts, options.overwrite, cosmetic(options))

    def train(
        self,
        folder: Path,
        options: Any,
        student: nn.Layer,
        losses: Callable[[dict[str, Any]], dict[str, Tensor]],
        wanted: Sequence[str] = (),
        trained: nn.Layer | None = None,
    ) -> Path:
        """Fit `student` into `folder` and report on its best, unless the run there is finished. Returns `folder`.

        The arguments are those of `fit`.
        """
        run = self.run(folder, options)
        if run.finished:
            runtime.log(f"{folder} holds this run, finished; --overwrite trains it again")
        else:
            self.fit(run, options, student, losses, wanted, trained)
        return folder

    def fit(
        self,
        run: Run,
        options: Any,
        student: nn.Layer,
        losses: Callable[[dict[str, Any]], dict[str, Tensor]],
        wanted: Sequence[str] = (),
        trained: nn.Layer | None = None,
        prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        save: Callable[[Path], None] | None = None,
        scored: bool = True,
    ) -> None:
        """Fit, evaluate the best and finish the run.

        student: the BertForSequenceClassification that is scored and saved; trained: what is trained, where that is
            more (projections) or the student is a part of it.
        losses: as `fit.fit` takes them; a batch holds input_ids, token_type_ids, mask, labels [B] and the outputs
            `wanted` of the teacher, by the names of `Teacher.outputs`.
        prepare: changes a batch, still of NumPy arrays, before it is used.
        save: writes the model; without it the student alone is saved.
        scored: False for a student that cannot predict yet: the last is kept, and no report is written.
        """
        if self.task.regression:
            start_regression(student.classifier, self.labels)
        plan = self.plan(options)
        with run.timer("teacher"):
            rows = plan.rows_of(options.max_steps * options.gradient_accumulation_steps)
            taught = self.teacher.outputs(self.texts, tuple(wanted), rows) if wanted else None

        def load(chosen: np.ndarray) -> dict[str, Any]:
            batch = self.texts.pad(chosen, self.teacher.wordpiece.pad_id) | {"labels": self.labels[chosen]}
            with run.timer("teacher"):
                batch |= taught.batch(chosen) if taught else {}
                return prepare(batch) if prepare else batch

        def save_student(best: Path) -> None:
            save_bert(student, best, self.teacher.wordpiece, self.task.labels)

        scores = (lambda: self.dev.scores(student)) if scored else None
        model = student if trained is None else trained
        fit(model, losses, Batches(plan, load), options, run, scores, self.task.metric, save or save_student)
        if scored and runtime.is_main():
            self.dev.report(run.output_dir, run.best_dir / "model.safetensors", options.seed)
        share = round(plan.real_share(0), 4)
        run.finish(task=self.task.name, pair=self.task.pair, train_rows=len(self.texts), real_token_share=share)
