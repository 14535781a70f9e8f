"""The file of augmented training rows: where it lies, how it is written and read.

It holds the training rows and their copies under the names of the task's official columns, or of your own training
file's, separated by raw tabs, so that it is read by the same code; a file made by the published scripts is read too,
and refused where they have quoted its texts as csv.
"""

from pathlib import Path

import yaml

from distill.data.readers import Rows
from distill.data.tasks import Task, find_split, load_rows, read_training_file, training_columns
from distill.errors import UserError
from distill.files import read_json
from distill.options import TaskOptions

_NAME = "train_aug.tsv"
_NO_TEXT = str.maketrans("\t\r\n", "   ")


def augmented_path(task: Task, data_dir: str | Path | None) -> Path:
    """`train_aug.tsv` beside the training rows, which must be there: in the task's folder of `data_dir`, or of
    PaddleNLP's cache (None). For your own data `data_dir` is the folder of --train_file."""
    if task.name == "own":
        return Path(data_dir or ".") / _NAME
    return find_split(TaskOptions(data_dir=str(data_dir) if data_dir else None), task, "train").with_name(_NAME)


def augmented_file(task: Task, args: TaskOptions) -> Path:
    """`augmented_path` by the flags. Raises UserError when it is --train_file itself."""
    if task.name != "own":
        return augmented_path(task, args.data_dir)
    train = find_split(args, task, "train")
    path = augmented_path(task, train.parent)
    if path == train:
        raise UserError(f"--train_file {train}: augmented rows would be written over it; give it another name")
    return path


def record_folder(path: Path) -> Path:
    """The folder beside the file `path` with run.yaml (settings) and run.json (facts) of the run that wrote it."""
    return path.with_suffix("")


def augmented_header(task: Task, args: TaskOptions) -> str:
    """The first line of the file."""
    return "\t".join(name for name in training_columns(args, task) if name) + "\n"


def augmented_lines(rows: Rows, task: Task) -> str:
    """The rows as lines of the file; a tab or line break within a text becomes a space."""
    assert rows.labels is not None
    labels = [str(label) if task.regression else task.labels[label] for label in rows.labels]
    columns = [rows.text_a, *([rows.text_b] if rows.text_b is not None else [])]
    flat = [[text.translate(_NO_TEXT) for text in column] for column in columns]
    return "".join("\t".join(fields) + "\n" for fields in zip(*flat, labels, strict=True))


def load_augmented(task: Task, args: TaskOptions) -> Rows:
    """The training rows with their copies, as data_augmentation.py wrote them.

    Raises UserError when there is no such file, when it is being made again, when it was made of other training rows
    than those of today, and (`path:line`) for a row that cannot be read.
    """
    path = augmented_file(task, args)
    if not path.is_file():
        raise UserError(f"{path}: no augmented rows; make them with data_augmentation/data_augmentation.py")
    record = record_folder(path)
    settings = record / "run.yaml"
    if settings.is_file():
        try:
            made_of = yaml.safe_load(settings.read_text(encoding="utf-8"))["rows"]
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
            what = f"does not say of which rows {path.name} was made"
            raise UserError(f"{settings}: {what}; delete it and make the rows again with --overwrite") from None
        if made_of != load_rows(args, task, "train").digest():
            train = find_split(args, task, "train")
            raise UserError(f"{path}: made of other rows than {train} holds now; make it again with --overwrite")
        if not read_json(record / "run.json").get("finished"):
            raise UserError(f"{path}: begun again by data_augmentation.py and not finished; let the same command end")
    return read_training_file(args, task, path, quoted=not settings.is_file())
