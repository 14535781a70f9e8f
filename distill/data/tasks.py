"""The one table of tasks: their labels, metric, official files and columns; and your own data by its columns' names.

Columns are found by their names in the header; only CoLA's train and dev files have none. Sources of the layouts: the
GLUE archives (Wang et al. 2018), SuperGLUE's BoolQ (Clark et al. 2019), and PaddleNLP's data sets, whose label order
is kept. Pairs with classes may also be jsonl as VIRT's authors (Li et al. 2022) published them, where the task's own
files are not there.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distill.data.readers import (
    NAMES_FIRST,
    Rows,
    column_names,
    file_format,
    one_line,
    read_columns,
    read_rows,
    read_unlabelled,
    shortened,
)
from distill.errors import UserError
from distill.files import write_atomic
from distill.runtime import log

if TYPE_CHECKING:
    from distill.options import TaskOptions


@dataclass(frozen=True)
class Task:
    """What a task asks for.

    name: official spelling, or 'own'; labels: the classes in index order, () for regression; metric: the key that
    selects the best checkpoint (accuracy, MCC, pearson_spearman); language: 'en' or 'zh'; dev_splits: MNLI has two.
    """

    name: str
    labels: tuple[str, ...]
    metric: str
    pair: bool
    language: str
    dev_splits: tuple[str, ...] = ("dev",)

    @property
    def regression(self) -> bool:
        """True when the label is a score to predict, not a class."""
        return not self.labels

    @property
    def num_outputs(self) -> int:
        """The number of the head's outputs: one for each class, or 1."""
        return len(self.labels) or 1

    @property
    def test_splits(self) -> tuple[str, ...]:
        """The test splits, in the order of the dev splits."""
        return tuple(split.replace("dev", "test") for split in self.dev_splits)

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits that `load_rows` knows for this task."""
        return ("train", *self.dev_splits, *self.test_splits)


@dataclass(frozen=True)
class _Layout:
    """Where a named task's rows are, and in which columns."""

    text_a: str
    text_b: str | None = None
    label: str = "label"
    suffix: str = "tsv"
    header: tuple[str, ...] | None = None  # names of the columns of files without a header line
    other_label: str | None = None  # what the label's column may be called instead
    score_range: tuple[float, float] | None = None
    numbered: bool = False  # the labels are numbers from 0, in the order of the task's
    empty_in_pairs: bool = False  # the official rows are known to hold empty texts
    short_row_help: str = ""
    raw_file: str | None = None  # a publication of the rows that is not laid out in splits, and what to do with it
    raw_help: str = ""
    cache: str | None = None  # folder in PaddleNLP's cache of data sets
    download: tuple[str, ...] = ()  # arguments of PaddleNLP's load_dataset

    def file_names(self, split: str) -> tuple[str, ...]:
        """The names that the split's file may have, the official one first."""
        if self.numbered:
            split = split.removesuffix("_matched")  # MNLI's rows are not published in its two parts
        if self.suffix == "jsonl" and split == "dev":
            return ("val.jsonl", "dev.jsonl")
        return (f"{split}.{self.suffix}",)

    def is_in(self, folder: Path, splits: Iterable[str]) -> bool:
        """Whether a file of one of the splits is in the folder."""
        return any((folder / name).is_file() for split in splits for name in self.file_names(split))

    def published(self) -> _Layout:
        """The same rows as published pairs: {"seq1": text, "seq2": text, "label": {"cls": class as a number}}."""
        return dataclasses.replace(
            self, text_a="seq1", text_b="seq2", label="label.cls", suffix="jsonl", other_label=None, numbered=True
        )


def _glue(name: str, text_a: str, text_b: str | None = None, label: str = "label", **more: object) -> _Layout:
    return _Layout(text_a, text_b, label, cache=f"Glue/{name}", download=("glue", name.lower()), **more)  # type: ignore[arg-type]


_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")

_TABLE: tuple[tuple[Task, _Layout], ...] = (
    (
        Task("CoLA", _BINARY, "MCC", False, "en"),
        _glue("CoLA", "sentence", header=("source", "label", "mark", "sentence")),
    ),
    (Task("SST-2", _BINARY, "accuracy", False, "en"), _glue("SST-2", "sentence")),
    (
        Task("MRPC", _BINARY, "accuracy", True, "en"),
        _glue(
            "MRPC",
            "#1 String",
            "#2 String",
            "Quality",
            raw_file="msr_paraphrase_train.txt",
            raw_help="msr_paraphrase_train.txt holds the train and dev rows in one; GLUE's download_glue_data.py "
            "--tasks MRPC --path_to_mrpc FOLDER makes train.tsv and dev.tsv of it",
        ),
    ),
    (
        Task("STS-B", (), "pearson_spearman", True, "en"),
        _glue("STS-B", "sentence1", "sentence2", "score", score_range=(0.0, 5.0)),
    ),
    (
        # Two official training rows have an empty second question (huggingface/datasets #277); in GLUE's older
        # archive some lines are halves of rows, split by a line break in a question.
        Task("QQP", _BINARY, "accuracy", True, "en"),
        _glue(
            "QQP",
            "question1",
            "question2",
            "is_duplicate",
            empty_in_pairs=True,
            short_row_help="; GLUE's older QQP archive has split rows: take its QQP-clean.zip, or remove the row",
        ),
    ),
    (
        Task(
            "MNLI",
            ("contradiction", "entailment", "neutral"),
            "accuracy",
            True,
            "en",
            ("dev_matched", "dev_mismatched"),
        ),
        _glue("MNLI", "sentence1", "sentence2", "gold_label"),
    ),
    (Task("QNLI", _ENTAILMENT, "accuracy", True, "en"), _glue("QNLI", "question", "sentence")),
    (Task("RTE", _ENTAILMENT, "accuracy", True, "en"), _glue("RTE", "sentence1", "sentence2")),
    (Task("WNLI", _BINARY, "accuracy", True, "en"), _glue("WNLI", "sentence1", "sentence2")),
    (
        Task("BoolQ", ("false", "true"), "accuracy", True, "en"),
        _Layout("question", "passage", suffix="jsonl", other_label="answer"),  # as its authors published it
    ),
    (
        Task("ChnSentiCorp", _BINARY, "accuracy", False, "zh"),
        _Layout("text_a", cache="ChnSentiCorp/ChnSentiCorp", download=("chnsenticorp",)),
    ),
)


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


_BY_NAME = {_plain(task.name): (task, layout) for task, layout in _TABLE}
_BY_NAME["senta"] = _BY_NAME["chnsenticorp"]


def get_task(name: str) -> Task:
    """The task of that name, in any case, with or without hyphen ('SST-2', 'sst2'); 'senta' is ChnSentiCorp.

    Raises UserError, listing the known names, for any other.
    """
    if _plain(name) not in _BY_NAME:
        known = ", ".join(task.name for task, _ in _TABLE)
        raise UserError(
            f"--task_name {name}: unknown; known are {known} (or senta), or give your own rows with --train_file"
        )
    return _BY_NAME[_plain(name)][0]


def label_complaint(stored: tuple[str, ...], task: Task, named: bool = True) -> str | None:
    """What is wrong with a model's label names for `task`: another order or other labels; None when they fit.

    named: whether the model itself names its labels; where numbers stand in for names, their count alone must fit.
    Capitals do not count. Numbers on one side only say nothing of the names on the other; a model's must be 0, 1, ...
    """
    if not named and len(stored) == len(task.labels):
        return None
    have, want = ([label.casefold() for label in labels] for labels in (stored, task.labels))
    numbers = [all(map(str.isdigit, names)) for names in (have, want)]
    unnamed = numbers == [False, True] or (numbers == [True, False] and have == list(map(str, range(len(have)))))
    if have == want or (unnamed and len(have) == len(want)):
        return None
    what = "labels in another order" if sorted(have) == sorted(want) else "other labels"
    ours, theirs = (shortened(labels) or "none, a score" for labels in (task.labels, stored))
    return f"has {what} ({theirs}) than {task.name} ({ours})"


def load_task(options: TaskOptions) -> Task:
    """The named task, or, with --train_file, --dev_file or --test_file, your own data.

    MNLI has its first dev and test splits alone where --data_dir holds published pairs, which have no others.

    Own data: the labels are those of the training file, sorted (as numbers where all are); one text or two by the
    columns; Chinese where half the letters of the first thousand texts are. What was found is printed. Raises UserError
    when rows or columns are missing, for labels that are two spellings of a number, for marks of rows without a label,
    and for scores without --regression.
    """
    paths = [path for path in (options.train_file, options.dev_file, options.test_file) if path]
    if not paths:
        if _plain(options.task_name) == "own":
            raise UserError("--task_name own: give the rows with --train_file, --dev_file, --test_file")
        for flag in ("text_column", "text_pair_column", "label_column", "regression"):
            if getattr(options, flag):
                raise UserError(f"--{flag} is for your own data: give its rows with --train_file, or leave it out")
        return _named_task(options)
    if not options.train_file and not options.regression:
        raise UserError("--train_file is needed for your own data: its labels are the classes (--regression: scores)")
    text_a, text_b = _own_texts(options, paths[0])
    label = options.label_column or "label"
    used = [name for name in (text_a, text_b, label) if name is not None]
    if len(set(used)) < len(used):
        raise UserError(
            f"{paths[0]}: a column is used twice ({', '.join(used)}); see --text_column, --text_pair_column and "
            "--label_column"
        )
    kind = f"one text, '{one_line(text_a)}'"
    if text_b is not None:
        kind = f"two texts, '{one_line(text_a)}' and '{one_line(text_b)}'"
    if options.regression:
        (texts,), _ = read_columns(paths[0], [text_a])
        task = Task("own", (), "pearson_spearman", text_b is not None, _language(texts))
        log(f"{paths[0]}: {len(texts):,} rows of {kind} ({task.language}), scores in '{one_line(label)}'")
        return task
    (texts, found), numbers = read_columns(paths[0], [text_a, _own_label(options, paths[0])])
    if "" in found:
        raise UserError(f"{paths[0]}:{numbers[found.index('')]}: the label is empty")
    counts = Counter(found)
    _refuse_marks(paths[0], found, numbers, counts)
    labels = _sorted_labels(paths[0], counts)
    if len(labels) < 2:
        raise UserError(f"{paths[0]}: every row has the label '{one_line(labels[0])}'; classes are at least two")
    task = Task("own", labels, "accuracy", text_b is not None, _language(texts))
    classes = shortened(f"{one_line(name, 25)} ({counts[name]:,})" for name in labels)
    log(f"{paths[0]}: {len(found):,} rows of {kind} ({task.language}), classes in '{one_line(label)}': {classes}")
    return task


def _named_task(options: TaskOptions) -> Task:
    task = get_task(options.task_name)
    if len(task.dev_splits) > 1 and options.data_dir and _find_layout(options.data_dir, task)[1].numbered:
        return dataclasses.replace(task, dev_splits=task.dev_splits[:1])
    return task


def load_rows(options: TaskOptions, task: Task, split: str) -> Rows:
    """The rows of `split` (one of `task.splits`), in the file's order, none left out.

    Named tasks are looked for in --data_dir (its folder of the task's name, or that folder itself), in their own files
    or, where none of these is there, as published pairs; without --data_dir in PaddleNLP's cache, which PaddleNLP's own
    download fills. Test files may come without labels, or with an empty one or -1 in every row, which is printed. QQP's
    official rows with one empty question are kept and their number is printed. Raises UserError naming file and row for
    whatever cannot be read.
    """
    if split not in task.splits:
        raise UserError(f"{task.name} has no split '{split}'; it has {', '.join(task.splits)}")
    path = find_split(options, task, split)
    if task.name == "own":
        return _own_rows(options, task, path, split in task.test_splits)
    return _named_rows(task, path, split in task.test_splits)


def read_training_file(options: TaskOptions, task: Task, path: str | Path, quoted: bool) -> Rows:
    """The labelled rows of another file that has the columns of the task's training file, such as an augmented one.

    quoted: it may have been written with the quoting of csv, which is not undone. A file of CoLA may have a header
    line. Raises UserError as `load_rows` does, and for a text that is quoted.
    """
    return _own_rows(options, task, path, False) if task.name == "own" else _named_rows(task, path, False, quoted)


def read_texts(options: TaskOptions, task: Task, path: str | Path) -> Rows:
    """The rows of another file without their labels: a .txt as `read_unlabelled` reads it, or one that has the columns
    of the task's texts.

    Raises UserError as `load_rows` does.
    """
    if Path(path).suffix.lower() == ".txt":
        return read_unlabelled(path, task.pair)
    if Path(path).suffix.lower() not in (".tsv", ".csv", ".json", ".jsonl"):
        line = "text_a TAB text_b" if task.pair else "a text"
        raise UserError(f"{path}: the suffix does not tell the format; use .txt ({line} a line), .tsv, .csv or .jsonl")
    if task.name == "own":
        text_a, text_b = _task_texts(options, task, path)
    else:
        layout = _layout_of(task, path)
        text_a, text_b = layout.text_a, layout.text_b
    return read_rows(path, text_a, text_b, refuse_quoted=task.name == "own")[0]


def training_columns(options: TaskOptions, task: Task) -> tuple[str, str | None, str]:
    """The names of the columns in which the task has its training rows: first text, second text or None, label."""
    if task.name == "own":
        path = find_split(options, task, "train")
        return *_own_texts(options, path), _own_label(options, path)
    layout = _BY_NAME[_plain(task.name)][1]
    return layout.text_a, layout.text_b, layout.label


def _may_be_published(task: Task) -> bool:
    return task.pair and not task.regression


def _layout_of(task: Task, path: str | Path) -> _Layout:
    """The task's own layout, or that of published pairs, by the file's keys: BoolQ's own files are jsonl too."""
    layout = _BY_NAME[_plain(task.name)][1]
    if not _may_be_published(task) or file_format(path) != "jsonl":
        return layout
    names = column_names(path)
    is_own = "seq1" not in names if layout.suffix == "jsonl" else layout.text_a in names
    return layout if is_own else layout.published()


def _named_rows(task: Task, path: str | Path, test: bool, refuse_quoted: bool = False) -> Rows:
    layout = _layout_of(task, path)
    names = column_names(path)
    header = layout.header
    if header is not None and (test or layout.text_a in names):
        header = None
    label: str | None = layout.label
    if layout.label not in names and layout.other_label in names:
        label = layout.other_label
    elif test and layout.label not in names:
        label = None
    rows, incomplete = read_rows(
        path,
        layout.text_a,
        layout.text_b,
        label,
        labels=tuple(map(str, range(len(task.labels)))) if layout.numbered else task.labels,
        score_range=layout.score_range,
        header=header,
        empty_in_pairs=layout.empty_in_pairs,
        short_row_help=layout.short_row_help,
        test=test,
        refuse_quoted=refuse_quoted,
    )
    _say_unlabelled(rows, label)
    if incomplete:
        log(f"{path}: {incomplete} of {len(rows)} rows have one empty text; they are kept, as in the official data")
    return rows


def find_split(options: TaskOptions, task: Task, split: str) -> Path:
    """The file of a split: your own, or the task's in --data_dir, or in PaddleNLP's cache, to which it is downloaded.

    Raises UserError when there is none.
    """
    if task.name == "own":
        own = {"train": options.train_file, "dev": options.dev_file, "test": options.test_file}[split]
        if not own:
            raise UserError(f"--{split}_file is needed: there are no {split} rows for your own data")
        return Path(own)
    if options.data_dir:
        folder, layout = _find_layout(options.data_dir, task)
        names = layout.file_names(split)
        for name in names:
            if (folder / name).is_file():
                return folder / name
        where = "" if _is_folder_of(task, folder) else f", and --data_dir has no folder {task.name}"
        if layout.raw_file and (folder / layout.raw_file).is_file():
            where = f"; {layout.raw_help}"
        other = "".join(f", nor {name} beside it" for name in names[1:])
        raise UserError(f"{folder / names[0]}: no such file{other} (the {split} split of {task.name}){where}")
    layout = _BY_NAME[_plain(task.name)][1]
    names = layout.file_names(split)
    if layout.cache is None:
        raise UserError(
            f"{task.name} cannot be downloaded: pass --data_dir, the folder that holds {task.name}/{names[0]}"
        )
    home = Path(os.environ.get("PPNLP_HOME") or Path.home() / ".paddlenlp")
    path = home / "datasets" / layout.cache / names[0]
    if not path.is_file():
        _download(task, layout, split, path)
    return path


def _find_layout(data_dir: str, task: Task) -> tuple[Path, _Layout]:
    """The folder of a named task's files, and the layout of all of them."""
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise UserError(f"--data_dir {root}: no such folder")
    folders = [entry for entry in root.iterdir() if entry.is_dir() and _is_folder_of(task, entry)]
    folders.sort(key=lambda entry: (entry.name != task.name, entry.name))
    folder = folders[0] if folders else root
    other = _BY_NAME.get(_plain(root.resolve().name))
    if not folders and other is not None and other[0].name != task.name:
        raise UserError(f"--data_dir {root}: the folder of {other[0].name}, but the task is {task.name} (--task_name)")
    layout = _BY_NAME[_plain(task.name)][1]
    if _may_be_published(task) and not layout.is_in(folder, task.splits):
        published = layout.published()
        if published.is_in(folder, task.splits):
            return folder, published
    return folder, layout


def _is_folder_of(task: Task, folder: Path) -> bool:
    known = _BY_NAME.get(_plain(folder.name))
    return known is not None and known[0].name == task.name


def _download(task: Task, layout: _Layout, split: str, path: Path) -> None:
    log(f"{task.name} {split}: not at {path}; PaddleNLP downloads it")
    remedy = f"pass --data_dir, the folder that holds {task.name}/{path.name}"
    try:
        from paddlenlp.datasets import load_dataset

        load_dataset(*layout.download, splits=split)
    except Exception as error:  # whatever went wrong in there, the way out is the same
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{task.name}: PaddleNLP could not download the {split} split ({reason}); {remedy}") from error
    if not path.is_file():
        raise UserError(f"{path}: not there after PaddleNLP's download; {remedy}")


_MOST_FRACTIONS = 20  # classes may be called 0.5, 1.0, 1.5, ..., but not by so many numbers
TEXT_NAMES = ("text", "sentence", "text_a", "sentence1")
_PAIR_NAMES = (("text_a", "text_b"), ("sentence1", "sentence2"), ("question", "sentence"))


def _own_texts(options: TaskOptions, path: str | Path) -> tuple[str, str | None]:
    """The names of the text columns of one of the own files."""
    return text_columns(column_names(path), options.text_column, options.text_pair_column, path)


def text_columns(
    names: Sequence[str], text: str | None, text_pair: str | None, path: str | Path
) -> tuple[str, str | None]:
    """Which of a file's columns `names` hold the text, and the second one of pairs; `text` and `text_pair` are what
    --text_column and --text_pair_column say. Raises UserError naming `path` when they are not there."""
    found = f"columns found: {shortened(names)}"
    for flag, name in (("--text_column", text), ("--text_pair_column", text_pair)):
        if name is not None and name not in names:
            raise UserError(f"{flag} {name}: no such column in {path} ({found})")
    if text:
        return text, text_pair
    candidates = [name for name in TEXT_NAMES if name in names and name != text_pair]
    if not text_pair:
        for first, second in _PAIR_NAMES:
            if first in names and second in names:
                return first, second
    if not candidates:
        raise UserError(
            f"{path}: no column {', '.join(TEXT_NAMES)} ({found}); name the text with --text_column; "
            f"{NAMES_FIRST} text_a TAB text_b TAB label"
        )
    return candidates[0], text_pair


def _own_label(options: TaskOptions, path: str | Path) -> str:
    name = options.label_column or "label"
    names = column_names(path)
    if name not in names:
        found = f"columns found: {shortened(names)}"
        if options.label_column:
            raise UserError(f"--label_column {name}: no such column in {path} ({found})")
        raise UserError(f"{path}: no column label ({found}); name it with --label_column")
    return name


def _task_texts(options: TaskOptions, task: Task, path: str | Path) -> tuple[str, str | None]:
    """As `_own_texts`. Raises UserError when they are more or fewer than the task's."""
    text_a, text_b = _own_texts(options, path)
    if (text_b is not None) != task.pair:
        kinds = ("one text", "two texts")
        raise UserError(
            f"{path}: rows of {kinds[text_b is not None]}, the task's have {kinds[task.pair]}: --text_pair_column"
        )
    return text_a, text_b


def _own_rows(options: TaskOptions, task: Task, path: str | Path, test: bool) -> Rows:
    text_a, text_b = _task_texts(options, task, path)
    label = None
    if not test or (options.label_column or "label") in column_names(path):
        label = _own_label(options, path)
    rows, _ = read_rows(path, text_a, text_b, label, labels=task.labels, test=test, refuse_quoted=True)
    _say_unlabelled(rows, label)
    return rows


def _say_unlabelled(rows: Rows, label: str | None) -> None:
    if label is not None and rows.labels is None:
        log(f"{rows.source}: every '{one_line(label)}' is empty or -1; the rows are read as unlabelled")


def _refuse_marks(path: str, found: Sequence[str], numbers: Sequence[int], counts: Mapping[str, int]) -> None:
    """Raises UserError for `-` and for -1 beside 0, 1, 2, ..., which corpora give to rows without a label.

    `-` beside `+`, and -1 beside 0 and 1 alone, are classes, of sentiment for instance.
    """
    others = set(counts) - {"-1"}
    marks = {"-": len(counts) > 1 and "+" not in counts}
    marks["-1"] = len(others) > 2 and others == set(map(str, range(len(others))))
    for mark, is_one in marks.items():
        if is_one and mark in counts:
            what = f"the label '{mark}' ({counts[mark]:,} rows) is no gold label"
            raise UserError(
                f"{path}:{numbers[found.index(mark)]}: {what}; remove these rows, or call the class otherwise"
            )


def _sorted_labels(path: str, labels: Iterable[str]) -> tuple[str, ...]:
    """In the order of numbers where all are finite ones ('nan' and 'inf' are words), otherwise of words."""
    try:
        numbers = {label: Decimal(label) for label in labels}
    except InvalidOperation:
        return tuple(sorted(labels))
    if not all(number.is_finite() for number in numbers.values()):
        return tuple(sorted(labels))
    fractions = [label for label, number in numbers.items() if number != number.to_integral_value()]
    if fractions and len(numbers) > _MOST_FRACTIONS:
        what = f"the labels look like scores ({len(numbers):,} different numbers, such as {fractions[0]})"
        raise UserError(f"{path}: {what}; add --regression")
    ordered = sorted(numbers, key=numbers.__getitem__)
    for label, following in pairwise(ordered):
        if numbers[label] == numbers[following]:
            raise UserError(f"{path}: the labels '{label}' and '{following}' are the same number; spell it in one way")
    return tuple(ordered)


def _language(texts: Sequence[str]) -> str:
    sample = "".join(texts[:1000])
    letters = sum(map(str.isalpha, sample))
    chinese = sum("\u4e00" <= character <= "\u9fff" for character in sample)
    return "zh" if 2 * chinese > letters else "en"


def submission_name(task: Task, split: str) -> str:
    """The name that the benchmark expects: SST-2.tsv, MNLI-m.tsv, MNLI-mm.tsv, BoolQ.jsonl; dev splits add '-dev'."""
    suffix = "jsonl" if task.name == "BoolQ" else "tsv"
    part = {"matched": "-m", "mismatched": "-mm"}.get(split.partition("_")[2], "")
    return f"{task.name}{part}{'-dev' if split in task.dev_splits else ''}.{suffix}"


def write_submission(
    task: Task, split: str, predictions: Sequence[int] | Sequence[float] | np.ndarray, path: str | Path
) -> Path:
    """Write the predictions for `split`, in row order, in the form that the benchmark takes; returns `path`.

    predictions: [n] class indices, or [n] scores for regression (STS-B's are clipped to 0..5). `path` is the file,
    usually folder / `submission_name(task, split)`. GLUE: header `index TAB prediction`, then from index 0 the label as
    the task spells it ('entailment', '0', '3.250'). BoolQ: one JSON object a line, {"idx": 0, "label": "true"}. Written
    whole or not at all.

    Raises ValueError for a wrong shape, a class that the task has not, or a score that is not finite.
    """
    if split not in task.splits:
        raise ValueError(f"{task.name} has no split '{split}'")
    values = np.asarray(predictions)
    if values.ndim != 1:
        raise ValueError(f"predictions of shape {list(values.shape)}; [n] is needed")
    if task.regression:
        if not np.isfinite(values).all():
            raise ValueError(f"prediction {int(np.flatnonzero(~np.isfinite(values))[0])} is not finite")
        if task.name == "STS-B":
            values = values.clip(0.0, 5.0)
        spelled = [f"{value:.3f}" for value in values]
    else:
        if values.size and (values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= len(task.labels)):
            raise ValueError(f"predictions must be class indices below {len(task.labels)}")
        spelled = [task.labels[value] for value in values]
    if task.name == "BoolQ":
        lines = [json.dumps({"idx": i, "label": label}) for i, label in enumerate(spelled)]
    else:
        lines = ["index\tprediction"] + [f"{i}\t{label}" for i, label in enumerate(spelled)]
    write_atomic(path, "\n".join(lines) + "\n")
    return Path(path)
