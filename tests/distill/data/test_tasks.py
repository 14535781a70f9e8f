"""The table of tasks on small files in the official layouts, on the real files where they are, and your own data."""

import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from distill.data.tasks import (
    get_task,
    label_complaint,
    load_rows,
    load_task,
    read_texts,
    submission_name,
    write_submission,
)
from distill.errors import UserError

MNLI_HEAD = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse"
    "\tsentence1_parse\tsentence2_parse\tsentence1\tsentence2"
)
MNLI_ROW = "{i}\t1\t1e\tfiction\t( a )\t( b )\t(ROOT a)\t(ROOT b)\tpremise {i}\thypothesis {i}"
STSB_HEAD = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
STSB_ROW = "{i}\tmain\tf\t2012\t0\tnone\tnone\tfirst {i}\tsecond {i}"
BOTH = (["first 0", "first 1"], ["second 0", "second 1"])


def options(**given) -> SimpleNamespace:
    fields = dict.fromkeys(
        ("data_dir", "train_file", "dev_file", "test_file", "text_column", "text_pair_column", "label_column")
    )
    return SimpleNamespace(**{**fields, "task_name": "SST-2", "regression": False, "max_seq_length": 128, **given})


def lay(folder: Path, name: str, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "official"),
    [
        ("sst-2", "SST-2"),
        ("sst2", "SST-2"),
        ("SST_2", "SST-2"),
        ("stsb", "STS-B"),
        ("sts-b", "STS-B"),
        ("cola", "CoLA"),
        ("mnli", "MNLI"),
        ("boolq", "BoolQ"),
        ("senta", "ChnSentiCorp"),
        ("chnsenticorp", "ChnSentiCorp"),
        ("Qqp", "QQP"),
    ],
)
def test_names_in_any_spelling(name, official):
    assert get_task(name).name == official
    assert load_task(options(task_name=name)) is get_task(official)


def test_an_unknown_name_lists_the_known_ones():
    message = refusal(get_task, "sst-3")
    for name in (
        "CoLA",
        "SST-2",
        "MRPC",
        "STS-B",
        "QQP",
        "MNLI",
        "QNLI",
        "RTE",
        "WNLI",
        "BoolQ",
        "ChnSentiCorp",
        "senta",
    ):
        assert name in message


def test_facts_of_the_tasks():
    assert get_task("MNLI").labels == ("contradiction", "entailment", "neutral")
    assert get_task("RTE").labels == get_task("QNLI").labels == ("entailment", "not_entailment")
    assert get_task("BoolQ").labels == ("false", "true")
    assert get_task("MNLI").splits == ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched")
    assert get_task("SST-2").splits == ("train", "dev", "test")
    assert get_task("STS-B").regression and get_task("STS-B").num_outputs == 1
    assert not get_task("MNLI").regression and get_task("MNLI").num_outputs == 3
    assert get_task("CoLA").metric == "MCC" and get_task("STS-B").metric == "pearson_spearman"
    assert get_task("senta").language == "zh" and not get_task("senta").pair
    assert not get_task("CoLA").pair and get_task("QQP").pair


# Each case: task, split, file name, lines, texts, labels (None: without).
OFFICIAL = {
    "cola-train": (
        "CoLA",
        "train",
        "train.tsv",
        ["gj04\t1\t\tfirst 0", 'gj04\t0\t*\t"first" 1'],
        (["first 0", '"first" 1'], None),
        [1, 0],
    ),
    "cola-test": ("CoLA", "test", "test.tsv", ["index\tsentence", "0\tfirst 0", "1\tfirst 1"], (BOTH[0], None), None),
    "sst2-dev": ("SST-2", "dev", "dev.tsv", ["sentence\tlabel", "first 0 \t1", "first 1 \t0"], (BOTH[0], None), [1, 0]),
    "sst2-test": ("SST-2", "test", "test.tsv", ["index\tsentence", "0\tfirst 0", "1\tfirst 1"], (BOTH[0], None), None),
    "mrpc-train": (
        "MRPC",
        "train",
        "train.tsv",
        [
            "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
            "1\t7\t8\tfirst 0\tsecond 0",
            "0\t7\t8\tfirst 1\tsecond 1",
        ],
        BOTH,
        [1, 0],
    ),
    "mrpc-test": (
        "MRPC",
        "test",
        "test.tsv",
        ["index\t#1 ID\t#2 ID\t#1 String\t#2 String", "0\t7\t8\tfirst 0\tsecond 0", "1\t7\t8\tfirst 1\tsecond 1"],
        BOTH,
        None,
    ),
    "stsb-dev": (
        "STS-B",
        "dev",
        "dev.tsv",
        [STSB_HEAD + "\tscore", *(STSB_ROW.format(i=i) + f"\t{i}.500" for i in (0, 1))],
        BOTH,
        [0.5, 1.5],
    ),
    "stsb-test": ("STS-B", "test", "test.tsv", [STSB_HEAD, *(STSB_ROW.format(i=i) for i in (0, 1))], BOTH, None),
    "qqp-train": (
        "QQP",
        "train",
        "train.tsv",
        [
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            "5\t1\t2\tfirst 0\tsecond 0\t0",
            "6\t1\t2\tfirst 1\tsecond 1\t1",
        ],
        BOTH,
        [0, 1],
    ),
    "qqp-test": (
        "QQP",
        "test",
        "test.tsv",
        ["id\tquestion1\tquestion2", "0\tfirst 0\tsecond 0", "1\tfirst 1\tsecond 1"],
        BOTH,
        None,
    ),
    "mnli-train": (
        "MNLI",
        "train",
        "train.tsv",
        [MNLI_HEAD + "\tlabel1\tgold_label", *(MNLI_ROW.format(i=i) + "\tneutral\tentailment" for i in (0, 1))],
        (["premise 0", "premise 1"], ["hypothesis 0", "hypothesis 1"]),
        [1, 1],
    ),
    "mnli-dev-mm": (
        "MNLI",
        "dev_mismatched",
        "dev_mismatched.tsv",
        [
            MNLI_HEAD + "".join(f"\tlabel{k}" for k in range(1, 6)) + "\tgold_label",
            *(MNLI_ROW.format(i=i) + 5 * "\tentailment" + "\t" + ("neutral", "contradiction")[i] for i in (0, 1)),
        ],
        (["premise 0", "premise 1"], ["hypothesis 0", "hypothesis 1"]),
        [2, 0],
    ),
    "mnli-test-m": (
        "MNLI",
        "test_matched",
        "test_matched.tsv",
        [MNLI_HEAD, *(MNLI_ROW.format(i=i) for i in (0, 1))],
        (["premise 0", "premise 1"], ["hypothesis 0", "hypothesis 1"]),
        None,
    ),
    "qnli-dev": (
        "QNLI",
        "dev",
        "dev.tsv",
        [
            "index\tquestion\tsentence\tlabel",
            "0\tfirst 0\tsecond 0\tentailment",
            "1\tfirst 1\tsecond 1\tnot_entailment",
        ],
        BOTH,
        [0, 1],
    ),
    "rte-dev": (
        "RTE",
        "dev",
        "dev.tsv",
        [
            "index\tsentence1\tsentence2\tlabel",
            "0\tfirst 0\tsecond 0\tnot_entailment",
            "1\tfirst 1\tsecond 1\tentailment",
        ],
        BOTH,
        [1, 0],
    ),
    "wnli-train": (
        "WNLI",
        "train",
        "train.tsv",
        ["index\tsentence1\tsentence2\tlabel", "0\tfirst 0\tsecond 0\t1", "1\tfirst 1\tsecond 1\t0"],
        BOTH,
        [1, 0],
    ),
    "boolq-train": (
        "BoolQ",
        "train",
        "train.jsonl",
        [json.dumps({"question": f"first {i}", "passage": f"second {i}", "idx": i, "label": i == 0}) for i in (0, 1)],
        BOTH,
        [1, 0],
    ),
    "boolq-val": (
        "BoolQ",
        "dev",
        "val.jsonl",
        [json.dumps({"question": f"first {i}", "passage": f"second {i}", "idx": i, "label": i == 1}) for i in (0, 1)],
        BOTH,
        [0, 1],
    ),
    "boolq-dev": (
        "BoolQ",
        "dev",
        "dev.jsonl",
        ['{"question": "q", "passage": "p", "label": false}'],
        (["q"], ["p"]),
        [0],
    ),
    "boolq-published": (
        "BoolQ",
        "dev",
        "dev.jsonl",
        ['{"question": "q", "title": "t", "answer": true, "passage": "p"}'],
        (["q"], ["p"]),
        [1],
    ),
    "boolq-test": (
        "BoolQ",
        "test",
        "test.jsonl",
        ['{"question": "q", "passage": "p", "idx": 0}'],
        (["q"], ["p"]),
        None,
    ),
    "senta-train": (
        "ChnSentiCorp",
        "train",
        "train.tsv",
        ["label\ttext_a", "1\t\u5f88\u597d", "0\t\u4e0d\u597d"],
        (["\u5f88\u597d", "\u4e0d\u597d"], None),
        [1, 0],
    ),
    "senta-dev-qid": (
        "senta",
        "dev",
        "dev.tsv",
        ["qid\tlabel\ttext_a", "0\t1\t\u5f88\u597d"],
        (["\u5f88\u597d"], None),
        [1],
    ),
    "senta-test-labelled": (
        "senta",
        "test",
        "test.tsv",
        ["label\ttext_a", "0\t\u4e0d\u597d"],
        (["\u4e0d\u597d"], None),
        [0],
    ),
    "rte-test-secret": (
        "RTE",
        "test",
        "test.tsv",
        ["index\tsentence1\tsentence2\tlabel", "0\tfirst 0\tsecond 0\t-1", "1\tfirst 1\tsecond 1\t-1"],
        BOTH,
        None,
    ),
    "senta-test-bare": (
        "senta",
        "test",
        "test.tsv",
        ["qid\ttext_a", "0\t\u4e0d\u597d"],
        (["\u4e0d\u597d"], None),
        None,
    ),
}


@pytest.mark.parametrize("case", OFFICIAL)
def test_official_layouts(tmp_path, case):
    name, split, file, lines, (first, second), labels = OFFICIAL[case]
    task = get_task(name)
    lay(tmp_path / "any" / task.name, file, *lines)
    for data_dir in (tmp_path / "any", tmp_path / "any" / task.name):
        rows = load_rows(options(task_name=name, data_dir=str(data_dir)), task, split)
        assert (rows.text_a, rows.text_b) == (first, second)
        assert task.pair == (rows.text_b is not None)
        if labels is None:
            assert rows.labels is None
        else:
            assert rows.labels.tolist() == labels
            assert rows.labels.dtype == (np.float32 if task.regression else np.int64)


def test_the_header_is_believed_more_than_the_order(tmp_path):
    lay(tmp_path / "SST-2", "train.tsv", "label\tnote\tsentence", "1\tx\tgood")
    rows = load_rows(options(data_dir=str(tmp_path)), get_task("SST-2"), "train")
    assert rows.text_a == ["good"] and rows.labels.tolist() == [1]
    lay(tmp_path / "CoLA", "dev.tsv", "label\tsentence", "1\tgood")
    rows = load_rows(options(data_dir=str(tmp_path)), get_task("CoLA"), "dev")
    assert rows.text_a == ["good"] and rows.labels.tolist() == [1]


def test_folder_names_in_any_case(tmp_path):
    lay(tmp_path / "chnsenticorp", "dev.tsv", "label\ttext_a", "1\ta")
    assert len(load_rows(options(data_dir=str(tmp_path)), get_task("senta"), "dev")) == 1
    lay(tmp_path / "sst2", "dev.tsv", "sentence\tlabel", "lower\t1")
    assert load_rows(options(data_dir=str(tmp_path)), get_task("SST-2"), "dev").text_a == ["lower"]
    lay(tmp_path / "SST-2", "dev.tsv", "sentence\tlabel", "official\t1")
    assert load_rows(options(data_dir=str(tmp_path)), get_task("SST-2"), "dev").text_a == ["official"]


def test_named_task_refusals(tmp_path):
    task, root = get_task("SST-2"), tmp_path / "data"
    given = options(data_dir=str(root))
    assert "--data_dir" in refusal(load_rows, given, task, "dev") and "no such folder" in refusal(
        load_rows, given, task, "dev"
    )
    root.mkdir()
    assert "has no folder SST-2" in refusal(load_rows, given, task, "dev")
    folder = root / "SST-2"
    path = lay(folder, "train.tsv", "sentence\tlabel", "good\t1", "bad\t2")
    assert refusal(load_rows, given, task, "dev").startswith(f"{folder / 'dev.tsv'}: no such file")
    assert refusal(load_rows, given, task, "train") == f"{path}:3: unknown label '2' (known: 0, 1)"
    assert "no split 'dev_matched'; it has train, dev, test" in refusal(load_rows, given, task, "dev_matched")
    lay(folder, "train.tsv", "sentence\tlabel", "good\t1", "\t0")
    assert refusal(load_rows, given, task, "train").startswith(f"{path}:3: the text in 'sentence' is empty")
    lay(folder, "train.tsv", "sentence\tlabel", "good\t1", "bad")
    assert refusal(load_rows, given, task, "train").startswith(f"{path}:3: 1 columns where 2 are needed")
    lay(folder, "train.tsv", "good\t1", "bad\t0")  # no header: the first row must not vanish
    assert refusal(load_rows, given, task, "train").startswith(f"{path}:1: no column 'sentence'")
    lay(folder, "train.tsv", "sentence\tlabel")
    assert "empty" in refusal(load_rows, given, task, "train")
    lay(folder, "dev.tsv", "sentence", "good")
    assert "no column 'label'" in refusal(load_rows, given, task, "dev")
    # SST-2's header would satisfy CoLA: the folder's name says otherwise.
    message = refusal(load_rows, options(data_dir=str(folder)), get_task("CoLA"), "dev")
    assert "the folder of SST-2, but the task is CoLA" in message


def test_mrpc_as_published_is_not_taken_for_the_training_rows(tmp_path):
    lay(tmp_path / "MRPC", "msr_paraphrase_train.txt", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t1\t2\ta\tb")
    message = refusal(load_rows, options(data_dir=str(tmp_path)), get_task("MRPC"), "train")
    assert message.startswith(f"{tmp_path}/MRPC/train.tsv: no such file") and "--path_to_mrpc" in message


def test_stsb_scores_outside_the_scale_are_refused(tmp_path):
    path = lay(tmp_path / "STS-B", "dev.tsv", STSB_HEAD + "\tscore", STSB_ROW.format(i=0) + "\t5.2")
    assert refusal(load_rows, options(data_dir=str(tmp_path)), get_task("STS-B"), "dev").startswith(
        f"{path}:2: the score '5.2'"
    )


def test_qqp_keeps_its_known_empty_questions_and_says_so(tmp_path, capsys):
    head = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
    lay(tmp_path / "QQP", "train.tsv", head, "1\t1\t2\ta\tb\t1", "2\t1\t2\tHow can I create an Android app?\t\t0")
    rows = load_rows(options(data_dir=str(tmp_path)), get_task("QQP"), "train")
    assert rows.text_b == ["b", ""] and rows.labels.tolist() == [1, 0]
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1 and "1 of 2 rows have one empty text" in printed[0]
    path = lay(tmp_path / "QQP", "dev.tsv", head, "1\t1\t2\ta\tb\t1", '"\tWas he real?\t0')
    message = refusal(load_rows, options(data_dir=str(tmp_path)), get_task("QQP"), "dev")
    assert message.startswith(f"{path}:3: 3 columns where 6 are needed") and "QQP-clean.zip" in message
    lay(tmp_path / "MRPC", "dev.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t1\t2\ta\t")
    assert "is empty" in refusal(load_rows, options(data_dir=str(tmp_path)), get_task("MRPC"), "dev")


def published(*rows: tuple[str, str, int]) -> list[str]:
    """Pairs as VIRT's data sets have them."""
    return [json.dumps({"seq1": first, "seq2": second, "label": {"cls": label}}) for first, second, label in rows]


@pytest.mark.parametrize("dev", ["dev.jsonl", "val.jsonl"])
@pytest.mark.parametrize(("name", "split"), [("mnli", "dev_matched"), ("qqp", "dev"), ("rte", "dev"), ("boolq", "dev")])
def test_pairs_published_as_jsonl(tmp_path, name, split, dev):
    lay(tmp_path / name, "train.jsonl", *published(("a", "b", 1), ("c", "d", 0)))
    lay(tmp_path / name, dev, *published(("e", "f", 0)))
    lay(tmp_path / name, "test.jsonl", '{"seq1": "g", "seq2": "h"}')
    for root in (tmp_path, tmp_path / name):
        given = options(task_name=name, data_dir=str(root))
        task = load_task(given)
        assert (task.name, task.labels) == (get_task(name).name, get_task(name).labels)
        assert (task.dev_splits, task.test_splits) == ((split,), (split.replace("dev", "test"),))
        rows = [load_rows(given, task, split) for split in task.splits]
        assert [(part.text_a, part.text_b) for part in rows] == [
            (["a", "c"], ["b", "d"]), (["e"], ["f"]), (["g"], ["h"]),
        ]  # fmt: skip
        assert rows[0].labels.tolist() == [1, 0] and rows[1].labels.tolist() == [0] and rows[2].labels is None
        more = read_texts(given, task, lay(tmp_path, "more.jsonl", '{"seq1": "i", "seq2": "j"}'))
        assert (more.text_a, more.text_b) == (["i"], ["j"])
    assert refusal(load_rows, given, get_task("MNLI" if name == "rte" else "RTE"), "train").startswith("--data_dir ")


def test_the_tasks_own_files_are_read_before_published_pairs(tmp_path):
    head = "index\tsentence1\tsentence2\tgold_label"
    for split in ("train", "dev_matched", "dev_mismatched"):
        lay(tmp_path / "MNLI", f"{split}.tsv", head, "0\tofficial\tb\tneutral")
    lay(tmp_path / "MNLI", "dev.jsonl", *published(("published", "b", 1)))
    given = options(task_name="MNLI", data_dir=str(tmp_path))
    task = load_task(given)
    assert task == get_task("MNLI") and load_rows(given, task, "dev_matched").text_a == ["official"]
    # One layout for all splits: a file that is missing is not taken from the other.
    (tmp_path / "MNLI" / "dev_matched.tsv").unlink()
    assert "dev_matched.tsv: no such file" in refusal(load_rows, given, task, "dev_matched")


def test_empty_texts_of_published_pairs_are_those_of_the_official_rows(tmp_path, capsys):
    for name in ("qqp", "rte", "boolq"):
        path = lay(tmp_path / name, "train.jsonl", *published(("a", "b", 0), ("c", "", 1)))
        given = options(task_name=name, data_dir=str(tmp_path))
        if name == "qqp":
            assert load_rows(given, load_task(given), "train").text_b == ["b", ""]
            assert f"{path}: 1 of 2 rows have one empty text; they are kept" in capsys.readouterr().out
        else:
            message = refusal(load_rows, given, load_task(given), "train")
            assert message == f"{path}:2: the text in 'seq2' is empty; fill it or remove the row"


def test_published_pairs_that_are_not_there(tmp_path):
    path = lay(tmp_path / "rte", "train.jsonl", *published(("a", "b", 0)))
    given = options(task_name="rte", data_dir=str(tmp_path))
    message = refusal(load_rows, given, load_task(given), "dev")
    assert message == f"{path.with_name('val.jsonl')}: no such file, nor dev.jsonl beside it (the dev split of RTE)"
    # Tasks of one text and scores are not published so.
    for name in ("SST-2", "STS-B"):
        lay(tmp_path / name, "dev.jsonl", *published(("a", "b", 0)))
        given = options(task_name=name, data_dir=str(tmp_path))
        assert refusal(load_rows, given, load_task(given), "dev").startswith(f"{tmp_path / name}/dev.tsv: no such file")


def paddlenlp_with(monkeypatch, load_dataset):
    package, datasets = ModuleType("paddlenlp"), ModuleType("paddlenlp.datasets")
    datasets.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "paddlenlp", package)
    monkeypatch.setitem(sys.modules, "paddlenlp.datasets", datasets)


def test_without_data_dir_the_cache_of_paddlenlp_is_read_then_filled(tmp_path, monkeypatch):
    monkeypatch.setenv("PPNLP_HOME", str(tmp_path))
    calls = []

    def download(*args, splits):
        calls.append((*args, splits))
        folder = "ChnSentiCorp/ChnSentiCorp" if args[0] == "chnsenticorp" else "Glue/RTE"
        lines = (
            ("label\ttext_a", "1\ta")
            if args[0] == "chnsenticorp"
            else ("index\tsentence1\tsentence2\tlabel", "0\ta\tb\tentailment")
        )
        lay(tmp_path / "datasets" / folder, f"{splits}.tsv", *lines)

    paddlenlp_with(monkeypatch, download)
    lay(tmp_path / "datasets" / "Glue" / "SST-2", "dev.tsv", "sentence\tlabel", "cached\t1")
    assert load_rows(options(), get_task("SST-2"), "dev").text_a == ["cached"]
    assert calls == []
    assert load_rows(options(), get_task("RTE"), "dev").labels.tolist() == [0]
    assert len(load_rows(options(), get_task("senta"), "train")) == 1
    assert calls == [("glue", "rte", "dev"), ("chnsenticorp", "train")]


def test_a_failed_download_names_data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("PPNLP_HOME", str(tmp_path))

    def fail(*args, splits):
        raise RuntimeError("Downloading from\n https://... failed")

    paddlenlp_with(monkeypatch, fail)
    message = refusal(load_rows, options(), get_task("QNLI"), "train")
    assert "could not download" in message and "pass --data_dir, the folder that holds QNLI/train.tsv" in message
    assert "pass --data_dir" in refusal(load_rows, options(), get_task("BoolQ"), "dev")
    paddlenlp_with(monkeypatch, lambda *args, splits: None)
    assert "not there after PaddleNLP's download" in refusal(load_rows, options(), get_task("QNLI"), "train")


@pytest.mark.parametrize(
    ("columns", "texts"),
    [
        (("text", "label"), ("text", None)),
        (("label", "sentence"), ("sentence", None)),
        (("text_a", "text_b", "label"), ("text_a", "text_b")),
        (("sentence2", "sentence1", "label"), ("sentence1", "sentence2")),
        (("text_a", "label"), ("text_a", None)),
        (("sentence1", "id", "label"), ("sentence1", None)),
        (("question", "sentence", "label"), ("question", "sentence")),
    ],
)
@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_own_data_by_the_usual_names(tmp_path, columns, texts, kind):
    values = [{name: f"{name} {i}" for name in columns} | {"label": ("no", "yes")[i % 2]} for i in range(3)]
    if kind == "jsonl":
        lines = [json.dumps(row) for row in values]
    else:
        separator = "\t" if kind == "tsv" else ","
        lines = [separator.join(columns)] + [separator.join(row[name] for name in columns) for row in values]
    path = lay(tmp_path, f"train.{kind}", *lines)
    given = options(train_file=str(path), dev_file=str(path))
    task = load_task(given)
    assert (task.name, task.labels, task.metric, task.language) == ("own", ("no", "yes"), "accuracy", "en")
    assert task.pair == (texts[1] is not None)
    rows = load_rows(given, task, "dev")
    assert rows.text_a == [f"{texts[0]} {i}" for i in range(3)]
    assert rows.text_b == (None if texts[1] is None else [f"{texts[1]} {i}" for i in range(3)])
    assert rows.labels.tolist() == [0, 1, 0]


def test_own_data_by_flags(tmp_path):
    path = lay(tmp_path, "t.csv", "id,query,doc,text,grade", "1,q1,d1,t1,10", "2,q2,d2,t2,9", "3,q3,d3,t3,-1")
    pair = options(train_file=str(path), text_column="query", text_pair_column="doc", label_column="grade")
    task = load_task(pair)
    assert task.labels == ("-1", "9", "10") and task.pair  # sorted as numbers
    rows = load_rows(pair, task, "train")
    assert (rows.text_a, rows.text_b, rows.labels.tolist()) == (["q1", "q2", "q3"], ["d1", "d2", "d3"], [2, 1, 0])
    single = options(train_file=str(path), text_column="doc", label_column="grade")
    assert not load_task(single).pair
    half = options(train_file=str(path), text_pair_column="doc", label_column="grade")
    assert load_rows(half, load_task(half), "train").text_a == ["t1", "t2", "t3"]


def test_own_pairs_in_the_published_form(tmp_path):
    path = lay(tmp_path, "my.jsonl", *published(("a", "b", 1), ("c", "d", 0)))
    test = lay(tmp_path, "test.jsonl", *published(("e", "f", 1)))
    columns = {"text_column": "seq1", "text_pair_column": "seq2", "label_column": "label.cls"}
    given = options(train_file=str(path), test_file=str(test), **columns)
    task = load_task(given)
    assert task.pair and task.labels == ("0", "1")
    rows = load_rows(given, task, "train")
    assert (rows.text_a, rows.text_b, rows.labels.tolist()) == (["a", "c"], ["b", "d"], [1, 0])
    assert load_rows(given, task, "test").labels.tolist() == [1]
    found = "(columns found: seq1, seq2, label.cls)"
    given = options(train_file=str(path), **columns | {"label_column": "label"})
    assert refusal(load_task, given) == f"--label_column label: no such column in {path} {found}"


def test_own_labels_that_are_words_are_sorted_as_words(tmp_path):
    path = lay(tmp_path, "t.jsonl", *(json.dumps({"text": "a", "label": label}) for label in ("nan", "inf", "10", "9")))
    assert load_task(options(train_file=str(path))).labels == ("10", "9", "inf", "nan")
    path = lay(tmp_path, "b.jsonl", *(json.dumps({"text": "a", "label": label}) for label in (True, False)))
    assert load_task(options(train_file=str(path))).labels == ("false", "true")


def test_a_number_spelt_in_two_ways_is_no_two_classes(tmp_path):
    path = lay(tmp_path, "t.csv", "text,label", "a,0", "b,1.0", "c,1")
    expected = f"{path}: the labels '1.0' and '1' are the same number; spell it in one way"
    assert refusal(load_task, options(train_file=str(path))) == expected
    long = lay(tmp_path, "long.csv", "text,label", "a,12345678901234567891", "b,12345678901234567890")
    assert load_task(options(train_file=str(long))).labels == ("12345678901234567890", "12345678901234567891")


def test_what_own_data_was_read_as_is_said(tmp_path, capsys):
    path = lay(tmp_path, "t.csv", "text_a,text_b,label", "a,b,no", "c,d,yes", "e,f,yes")
    load_task(options(train_file=str(path)))
    read = f"{path}: 3 rows of two texts, 'text_a' and 'text_b' (en)"
    assert capsys.readouterr().out == f"{read}, classes in 'label': no (1), yes (2)\n"
    load_task(options(train_file=str(path), text_column="text_b", label_column="text_a", regression=True))
    assert capsys.readouterr().out == f"{path}: 3 rows of one text, 'text_b' (en), scores in 'text_a'\n"
    load_task(options(task_name="SST-2"))
    assert not capsys.readouterr().out


def test_class_names_of_any_length_are_said_in_one_line(tmp_path, capsys):
    path = lay(tmp_path, "t.csv", "text,label", 'a,"one\nclass"', f"b,{'x' * 99}")
    load_task(options(train_file=str(path)))
    assert capsys.readouterr().out.endswith(f"classes in 'label': one class (1), {'x' * 22}... (1)\n")


@pytest.mark.parametrize(
    ("labels", "mark"),
    [
        (("no", "yes", "-"), "-"),
        (("0", "1", "-"), "-"),
        (("0", "1", "2", "-1"), "-1"),
        (("+", "-"), None),
        (("-1", "0", "1"), None),  # sentiment
        (("-2", "-1", "0", "1", "2"), None),
        (("-1", "1", "2", "3"), None),
    ],
)
def test_marks_of_rows_without_a_label_are_no_classes(tmp_path, labels, mark):
    path = lay(tmp_path, "t.tsv", "text\tlabel", *(f"a\t{label}" for label in (*labels, *labels)))
    if mark is None:
        assert sorted(load_task(options(train_file=str(path))).labels) == sorted(labels)
        return
    message = refusal(load_task, options(train_file=str(path)))
    row = 2 + labels.index(mark)
    assert message.startswith(f"{path}:{row}: the label '{mark}' (2 rows) is no gold label; remove these rows")


def test_scores_are_not_taken_for_classes(tmp_path):
    scores = [f"{i / 10:.1f}" for i in range(21)]
    path = lay(tmp_path, "t.tsv", "text\tlabel", *(f"a\t{score}" for score in [*scores, "1.00"]))
    message = refusal(load_task, options(train_file=str(path)))
    assert message == f"{path}: the labels look like scores (22 different numbers, such as 0.1); add --regression"
    assert load_task(options(train_file=str(path), regression=True)).regression
    for names in (scores[:20], [str(i) for i in range(40)]):
        path = lay(tmp_path, "t.tsv", "text\tlabel", *(f"a\t{name}" for name in names))
        assert load_task(options(train_file=str(path))).labels == tuple(names)


@pytest.mark.parametrize("mark", ["", "-1"])
def test_own_test_rows_with_placeholders_are_unlabelled(tmp_path, mark, capsys):
    train = lay(tmp_path, "train.tsv", "text\tlabel", "a\t0", "b\t1")
    test = lay(tmp_path, "test.tsv", "text\tlabel", f"a\t{mark}", f"b\t{mark}")
    given = options(train_file=str(train), test_file=str(test))
    task = load_task(given)
    capsys.readouterr()
    assert load_rows(given, task, "test").labels is None
    assert capsys.readouterr().out == f"{test}: every 'label' is empty or -1; the rows are read as unlabelled\n"


def test_files_without_a_header_are_told_what_is_needed(tmp_path):
    for name, row in (
        ("a.csv", f'3,"Wall St.\nBears {"x" * 60}",two'),
        ("in_domain_train.tsv", "gj04\t1\t\tOur friends"),
    ):
        message = refusal(load_task, options(train_file=str(lay(tmp_path, name, row, row))))
        assert "the first line of a .tsv or .csv must name the columns, such as text_a TAB text_b TAB label" in message
        assert len(message) < 300 + len(str(tmp_path))


def test_texts_quoted_as_in_csv_are_refused_in_own_data_alone(tmp_path):
    row = '"he said ""hi"""\t1'
    path = lay(tmp_path / "SST-2", "train.tsv", "sentence\tlabel", row, "b\t0")
    own = options(train_file=str(path), dev_file=str(path))
    assert refusal(load_rows, own, load_task(own), "train").startswith(f"{path}:2: 'sentence' is quoted as in csv")
    assert len(load_rows(options(data_dir=str(tmp_path)), get_task("SST-2"), "train")) == 2


def test_further_texts_by_their_columns_or_lines(tmp_path):
    train = lay(tmp_path, "train.csv", "review,stars", "a,1", "b,2")
    own = options(train_file=str(train), text_column="review", label_column="stars")
    more = lay(tmp_path, "more.csv", "stars,review", 'x,"one, more"')
    lines = lay(tmp_path, "more.txt", "one, more")
    for path in (more, lines):
        rows = read_texts(own, load_task(own), path)
        assert rows.text_a == ["one, more"] and rows.text_b is None and rows.labels is None
    head = "index\tsentence1\tsentence2"
    rows = read_texts(options(), get_task("RTE"), lay(tmp_path, "test.tsv", head, "0\ta\tb"))
    assert (rows.text_a, rows.text_b) == (["a"], ["b"])
    plain = lay(tmp_path, "plain.tsv", "a good film", "a bad film")
    assert refusal(read_texts, options(), get_task("SST-2"), plain).startswith(f"{plain}:1: no column 'sentence'")
    assert "use .txt (a text a line), .tsv" in refusal(read_texts, own, load_task(own), tmp_path / "more.parquet")
    pair = lay(tmp_path, "pair.csv", "text_a,text_b", "a,b")
    alone = options(train_file=str(lay(tmp_path, "one.csv", "text,label", "a,1", "b,2")))
    assert "rows of two texts, the task's have one text" in refusal(read_texts, alone, load_task(alone), pair)


def test_own_regression_and_test_rows_without_labels(tmp_path):
    train = lay(tmp_path, "train.tsv", "text\tlabel", "a\t-2.5", "b\t7")
    test = lay(tmp_path, "test.tsv", "text", "c")
    given = options(train_file=str(train), test_file=str(test), regression=True)
    task = load_task(given)
    assert task.regression and task.metric == "pearson_spearman" and task.num_outputs == 1
    assert load_rows(given, task, "train").labels.tolist() == [-2.5, 7.0]
    assert load_rows(given, task, "test").labels is None
    assert "--dev_file is needed" in refusal(load_rows, given, task, "dev")
    lay(tmp_path, "train.tsv", "text\tlabel", "a\t1", "b\tgood")
    assert refusal(load_rows, given, task, "train").startswith(f"{train}:3: the score 'good'")


def test_own_chinese_is_recognised(tmp_path):
    path = lay(tmp_path, "t.tsv", "text\tlabel", "\u623f\u95f4\u5f88\u597d OK\t1", "\u4e0d\u597d\t0")
    assert load_task(options(train_file=str(path))).language == "zh"


def test_own_data_refusals(tmp_path):
    train = lay(tmp_path, "train.tsv", "text\tlabel", "a\tx", "b\ty")
    dev = lay(tmp_path, "dev.tsv", "text\tlabel", "a\tx", "b\tz")
    given = options(train_file=str(train), dev_file=str(dev))
    assert refusal(load_rows, given, load_task(given), "dev") == f"{dev}:3: unknown label 'z' (known: x, y)"
    assert "--train_file is needed" in refusal(load_task, options(dev_file=str(dev)))
    assert "--train_file" in refusal(load_task, options(task_name="own"))
    message = refusal(load_task, options(train_file=str(train), text_column="body"))
    assert message == f"--text_column body: no such column in {train} (columns found: text, label)"
    assert refusal(load_task, options(train_file=str(train), text_pair_column="b")).startswith("--text_pair_column b:")
    assert refusal(load_task, options(train_file=str(train), label_column="y")).startswith("--label_column y:")
    for twice in (
        {"text_pair_column": "label"},
        {"text_column": "label"},
        {"text_column": "text", "text_pair_column": "text"},
    ):
        assert "a column is used twice" in refusal(load_task, options(train_file=str(train), **twice))
    assert refusal(load_task, options(text_column="text")).startswith("--text_column is for your own data")
    assert refusal(load_task, options(regression=True)).startswith("--regression is for your own data")
    odd = lay(tmp_path, "odd.tsv", "body\tclass", "a\tx")
    message = refusal(load_task, options(train_file=str(odd)))
    assert "columns found: body, class" in message and "--text_column" in message
    message = refusal(load_task, options(train_file=str(odd), text_column="body"))
    assert "columns found: body, class" in message and "--label_column" in message
    pair = lay(tmp_path, "pair.tsv", "text_a\ttext_b\tlabel", "a\tb\tx")
    mixed = options(train_file=str(train), dev_file=str(pair))
    assert "rows of two texts" in refusal(load_rows, mixed, load_task(mixed), "dev")
    same = lay(tmp_path, "same.tsv", "text\tlabel", "a\tx", "b\tx")
    assert "every row has the label 'x'" in refusal(load_task, options(train_file=str(same)))
    hole = lay(tmp_path, "hole.tsv", "text\tlabel", "a\tx", "b\t")
    assert refusal(load_task, options(train_file=str(hole))) == f"{hole}:3: the label is empty"
    missing = tmp_path / "none.tsv"
    assert refusal(load_task, options(train_file=str(missing))) == f"{missing}: no such file"


@pytest.mark.parametrize(
    ("name", "split", "file"),
    [
        ("sst2", "test", "SST-2.tsv"),
        ("cola", "test", "CoLA.tsv"),
        ("mnli", "test_matched", "MNLI-m.tsv"),
        ("stsb", "test", "STS-B.tsv"),
        ("mnli", "test_mismatched", "MNLI-mm.tsv"),
        ("mnli", "dev_mismatched", "MNLI-mm-dev.tsv"),
        ("boolq", "test", "BoolQ.jsonl"),
    ],
)
def test_submission_names(name, split, file):
    assert submission_name(get_task(name), split) == file


@pytest.mark.parametrize(
    ("name", "split", "predictions", "text"),
    [
        ("SST-2", "test", [1, 0], "index\tprediction\n0\t1\n1\t0\n"),
        ("MNLI", "test_matched", [1, 2, 0], "index\tprediction\n0\tentailment\n1\tneutral\n2\tcontradiction\n"),
        ("RTE", "test", np.array([1, 0]), "index\tprediction\n0\tnot_entailment\n1\tentailment\n"),
        ("STS-B", "test", np.float32([5.7, -0.1, 3.25]), "index\tprediction\n0\t5.000\n1\t0.000\n2\t3.250\n"),
        ("BoolQ", "test", [1, 0], '{"idx": 0, "label": "true"}\n{"idx": 1, "label": "false"}\n'),
    ],
)
def test_submission_files(tmp_path, name, split, predictions, text):
    path = tmp_path / "out" / "file"
    assert write_submission(get_task(name), split, predictions, path) == path
    assert path.read_bytes() == text.encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("name", "split", "predictions"),
    [
        ("SST-2", "test", [2]),
        ("SST-2", "test", [-1]),
        ("SST-2", "test", [[0.1, 0.9]]),
        ("SST-2", "test", [0.5]),
        ("STS-B", "test", [1.0, float("nan")]),
        ("MNLI", "test", [0]),
    ],
)
def test_submissions_that_cannot_be_right_are_refused(tmp_path, name, split, predictions):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(ValueError):
        write_submission(get_task(name), split, predictions, path)
    assert path.read_text() == "before"


# Facts of the real files: number of rows, and the first text where it is short.
REAL = {
    ("glue_data", "SST-2", "train"): (67349, "hide new secretions from the parental units"),
    ("glue_data", "SST-2", "dev"): (872, "it 's a charming and often affecting journey ."),
    ("glue_data", "MRPC", "train"): (3668, None),
    ("glue_data", "MRPC", "dev"): (408, None),
    ("glue_data", "RTE", "train"): (2490, "No Weapons of Mass Destruction Found in Iraq Yet."),
    ("glue_data", "RTE", "dev"): (277, None),
    ("glue_data", "STS-B", "train"): (5749, "A plane is taking off."),
    ("glue_data", "STS-B", "dev"): (1500, "A man with a hard hat is dancing."),
    (".", "ChnSentiCorp", "train"): (9600, None),
    (".", "ChnSentiCorp", "dev"): (1200, None),
    (".", "ChnSentiCorp", "test"): (1200, None),
}


@pytest.mark.skipif(not os.environ.get("DISTILL_DATA"), reason="DISTILL_DATA is unset: no real data sets to read")
@pytest.mark.parametrize(("folder", "name", "split"), REAL)
def test_real_files_row_by_row(folder, name, split):
    task = get_task(name)
    data_dir = Path(os.environ["DISTILL_DATA"]) / folder
    rows = load_rows(options(task_name=name, data_dir=str(data_dir)), task, split)
    count, first = REAL[folder, name, split]
    assert len(rows) == count == len(rows.labels)
    assert first in (None, rows.text_a[0])
    # The same rows, read the plain way: lines split on tabs at the columns' official places.
    lines = Path(rows.source).read_bytes().decode("utf-8").split("\n")
    fields = [line.split("\t") for line in lines[1:] if line]
    a, b, label = {
        "SST-2": (0, None, 1),
        "MRPC": (3, 4, 0),
        "RTE": (1, 2, 3),
        "STS-B": (7, 8, 9),
        "ChnSentiCorp": (1, None, 0),
    }[name]
    assert rows.text_a == [row[a].strip() for row in fields]
    assert rows.text_b == (None if b is None else [row[b].strip() for row in fields])
    if task.regression:
        np.testing.assert_array_equal(rows.labels, np.array([float(row[label]) for row in fields], np.float32))
        assert rows.labels.min() >= 0 and rows.labels.max() <= 5
    else:
        assert [task.labels[i] for i in rows.labels] == [row[label] for row in fields]
        assert set(rows.labels.tolist()) == set(range(len(task.labels)))


@pytest.mark.parametrize(
    ("stored", "task", "expected"),
    [
        (("0", "1"), "MRPC", None),
        (("not_equivalent", "equivalent"), "MRPC", None),  # says nothing about the order of 0 and 1
        (("Entailment", "NOT_ENTAILMENT"), "RTE", None),
        (("0", "1"), "RTE", None),
        ((), "STS-B", None),
        (("1", "0"), "MRPC", "has labels in another order (1, 0) than MRPC (0, 1)"),
        (("1", "0"), "RTE", "has other labels (1, 0) than RTE (entailment, not_entailment)"),
        (("not_entailment", "entailment"), "RTE", "has labels in another order (not_entailment, entailment) than RTE"),
        (("a", "b", "c"), "MRPC", "has other labels (a, b, c) than MRPC (0, 1)"),
        ((), "MRPC", "has other labels (none, a score) than MRPC (0, 1)"),
        ((), "RTE", "has other labels (none, a score) than RTE"),
        (("0", "1"), "STS-B", "has other labels (0, 1) than STS-B (none, a score)"),
        (("0",), "STS-B", "has other labels (0) than STS-B (none, a score)"),
    ],
)
def test_label_names_of_a_model(stored, task, expected):
    found = label_complaint(stored, get_task(task))
    assert found is None if expected is None else found.startswith(expected)
