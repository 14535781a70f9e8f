"""The augmented file: its place, its form, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from distill.data.augmented import (
    augmented_file,
    augmented_header,
    augmented_lines,
    augmented_path,
    load_augmented,
    record_folder,
)
from distill.data.readers import Rows
from distill.data.tasks import get_task, load_rows, load_task
from distill.errors import UserError
from distill.options import TaskOptions
from tests.tiny import make_glue_data

LAYOUTS = {  # header and a row of the official training file
    "CoLA": (None, "gj04\t1\t\tThey drank the pub dry."),
    "SST-2": ("sentence\tlabel", "a fine film \t1"),
    "MRPC": ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", '1\t10\t11\tHe said "no".\tHe refused.'),
    "QQP": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "0\t1\t2\tWhy?\tHow so?\t0"),
    "QNLI": ("index\tquestion\tsentence\tlabel", "0\tWho?\tA man.\tnot_entailment"),
    "RTE": ("index\tsentence1\tsentence2\tlabel", "0\tIt rains.\tIt is wet.\tentailment"),
}


def write(folder, name, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder / name


def save(task, options, rows):
    path = augmented_file(task, options)
    path.write_text(augmented_header(task, options) + augmented_lines(rows, task), encoding="utf-8")
    return path


def assert_equal(found, expected):
    assert (found.text_a, found.text_b) == (expected.text_a, expected.text_b)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.labels.dtype == expected.labels.dtype


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_written_is_read_again(name, tmp_path):
    header, row = LAYOUTS[name]
    write(tmp_path / name, "train.tsv", *([header] if header else []), row)
    task, options = get_task(name), TaskOptions(task_name=name, data_dir=str(tmp_path))
    rows = load_rows(options, task, "train")
    more = rows.concat(rows).concat(rows)
    path = save(task, options, more)
    assert path == augmented_path(task, tmp_path) == tmp_path / name / "train_aug.tsv"
    assert_equal(load_augmented(task, options), more)
    if header and name != "MRPC":
        assert path.read_text().splitlines()[0].split("\t") == [
            column for column in header.split("\t") if column not in ("id", "qid1", "qid2", "index")
        ]


def test_scores_keep_every_bit(tmp_path):
    make_glue_data(tmp_path, "STS-B", rows=8)
    task, options = get_task("sts-b"), TaskOptions(task_name="sts-b", data_dir=str(tmp_path))
    rows = load_rows(options, task, "train")
    rows.labels[:4] = np.float32([0.1, 1 / 3, 5, 4.9999995])
    save(task, options, rows)
    assert_equal(load_augmented(task, options), rows)


def test_boolq_is_written_as_a_table(tmp_path):
    write(tmp_path / "BoolQ", "train.jsonl", '{"question": "is it", "passage": "It is.", "label": true}')
    task, options = get_task("BoolQ"), TaskOptions(task_name="BoolQ", data_dir=str(tmp_path))
    rows = load_rows(options, task, "train")
    assert save(task, options, rows).read_text() == "question\tpassage\tlabel\nis it\tIt is.\ttrue\n"
    assert_equal(load_augmented(task, options), rows)


def test_published_pairs_are_written_in_the_official_columns(tmp_path):
    write(tmp_path / "rte", "train.jsonl", '{"seq1": "It rains.", "seq2": "It is wet.", "label": {"cls": 1}}')
    options = TaskOptions(task_name="RTE", data_dir=str(tmp_path))
    task = load_task(options)
    rows = load_rows(options, task, "train")
    path = save(task, options, rows)
    assert path.read_text() == "sentence1\tsentence2\tlabel\nIt rains.\tIt is wet.\tnot_entailment\n"
    assert_equal(load_augmented(task, options), rows)


def test_own_data(tmp_path):
    train = write(tmp_path, "reviews.csv", "review,stars", '"a tab\there, a\nbreak",5', '"say ""no""",1')
    options = TaskOptions(train_file=str(train), text_column="review", label_column="stars")
    task = load_task(options)
    rows = load_rows(options, task, "train")
    assert rows.text_a == ["a tab\there, a\nbreak", 'say "no"']
    path = save(task, options, rows)
    assert path == augmented_path(task, tmp_path) == tmp_path / "train_aug.tsv"
    assert path.read_text() == 'review\tstars\na tab here, a break\t5\nsay "no"\t1\n'
    assert_equal(load_augmented(task, options), Rows(["a tab here, a break", 'say "no"'], None, rows.labels, ""))


def test_the_training_file_itself_is_not_written_over(tmp_path):
    train = write(tmp_path, "train_aug.tsv", "text\tlabel", "a film\t1", "no film\t0")
    options = TaskOptions(train_file=str(train))
    line = refusal(load_task(options), options)
    assert line == f"--train_file {train}: augmented rows would be written over it; give it another name"


def test_a_file_of_the_published_script_is_read(tmp_path):
    """Its columns are those of the training file, of CoLA without a header."""
    row = LAYOUTS["CoLA"][1]
    write(tmp_path / "CoLA", "train_aug.tsv", row, row.replace("dry", "empty"))
    options = TaskOptions(task_name="CoLA", data_dir=str(tmp_path))
    write(tmp_path / "CoLA", "train.tsv", row)
    found = load_augmented(get_task("CoLA"), options)
    assert found.text_a == ["They drank the pub dry.", "They drank the pub empty."] and found.labels.tolist() == [1, 1]
    header, row = LAYOUTS["MRPC"]
    write(tmp_path / "MRPC", "train.tsv", header, row)
    write(tmp_path / "MRPC", "train_aug.tsv", header, row, row.replace("refused", "declined"))
    options = TaskOptions(task_name="MRPC", data_dir=str(tmp_path))
    assert load_augmented(get_task("MRPC"), options).text_b == ["He refused.", "He declined."]


def test_a_file_that_a_csv_writer_has_quoted_is_refused(tmp_path):
    header, row = LAYOUTS["MRPC"]
    quoted = row.replace("He refused.", '"He ""refused""."')
    write(tmp_path / "MRPC", "train.tsv", header, quoted)  # the official file is read as it is
    path = write(tmp_path / "MRPC", "train_aug.tsv", header, row, quoted)
    options = TaskOptions(task_name="MRPC", data_dir=str(tmp_path))
    assert load_rows(options, get_task("MRPC"), "train").text_b == ['"He ""refused""."']
    assert f"{path}:3: '#2 String' is quoted as in csv" in refusal(get_task("MRPC"), options)


def refusal(task, options):
    with pytest.raises(UserError) as error:
        load_augmented(task, options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_record_is_read_whatever_the_locale(tmp_path, monkeypatch):
    task, options = get_task("SST-2"), TaskOptions(data_dir=str(make_glue_data(tmp_path / "data", rows=4)))
    rows = load_rows(options, task, "train")
    record = record_folder(save(task, options, rows))
    write(record, "run.yaml", f"encoder: modèle\nrows: {rows.digest()}")
    write(record, "run.json", '{"finished": true}')
    read_text = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self, encoding=None: read_text(self, encoding or "ascii"))
    assert_equal(load_augmented(task, options), rows)


def test_refused(tmp_path, monkeypatch):
    task, options = get_task("SST-2"), TaskOptions(data_dir=str(make_glue_data(tmp_path / "data", rows=4)))
    path = augmented_path(task, options.data_dir)
    assert refusal(task, options) == f"{path}: no augmented rows; make them with data_augmentation/data_augmentation.py"
    rows = load_rows(options, task, "train")
    save(task, options, rows)
    for content in ("seed: 1", "[", "rows", ""):
        settings = write(record_folder(path), "run.yaml", content)
        assert refusal(task, options).startswith(f"{settings}: does not say of which rows {path.name} was made; delete")
    settings.write_bytes(b"rows: caf\xe9\n")
    assert refusal(task, options).startswith(f"{settings}: does not say of which rows")
    write(record_folder(path), "run.yaml", yaml.safe_dump({"rows": rows.digest(), "seed": 1}))
    write(record_folder(path), "run.json", '{"finished": false}')
    assert refusal(task, options).startswith(f"{path}: begun again by data_augmentation.py and not finished")
    write(record_folder(path), "run.json", '{"finished": true}')
    assert_equal(load_augmented(task, options), rows)
    with open(path, "a") as file:
        file.write("no label\n")
    assert refusal(task, options) == f"{path}:6: 1 columns where 2 are needed"
    train = Path(options.data_dir) / "SST-2" / "train.tsv"
    train.write_text(train.read_text() + "one more film\t1\n")
    assert f"{path}: made of other rows than {train} holds now" in refusal(task, options)
    monkeypatch.setenv("PPNLP_HOME", str(tmp_path / "home"))
    write(tmp_path / "home" / "datasets" / "Glue" / "SST-2", "train.tsv", "sentence\tlabel", "a film\t1")
    assert augmented_path(task, None).parent == tmp_path / "home" / "datasets" / "Glue" / "SST-2"
